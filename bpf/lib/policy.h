/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * May this conversation begin? Tenant wall first (an AND that no policy can widen), then
 * NetworkPolicy (a union of allows: any hit lets in, so the order of probes only chooses the name).
 *
 * The question is always put in the direction of the opener: `remote` is the other end and `port`
 * the port that was called, whoever sent the packet at hand.
 */
#ifndef RINGFENCE_POLICY_H
#define RINGFENCE_POLICY_H

struct policy_peer {
	__u32 identity;
	__u32 tenant;
	__u32 cidr;
	__u32 in_cluster;
};

static __always_inline int policy_isolated(const struct endpoint *endpoint,
					   enum direction direction)
{
	return !!(endpoint->flags &
		  (direction == DIR_INGRESS ? EP_ISOLATED_INGRESS : EP_ISOLATED_EGRESS));
}

/* Is there anything in this direction that could say no? */
static __always_inline int policy_confined(const struct endpoint *endpoint,
					   enum direction direction)
{
	__u32 wall = endpoint->flags & (EP_WALL | EP_WALL_AUDIT);

	return policy_isolated(endpoint, direction) ||
	       (direction == DIR_INGRESS && wall == EP_WALL);
}

/* An address of a quarantined namespace keeps its identity but speaks for no tenant. */
static __always_inline void policy_find_peer(struct policy_peer *peer, struct address *remote)
{
	const struct address_value *known = addr_map.lookup(remote);

	if (!known)
		return;
	peer->identity = known->identity;
	if (!(known->flags & ADDR_QUARANTINE))
		peer->tenant = known->tenant;
}

static __always_inline void policy_find_cidr(struct policy_peer *peer, const struct address *remote)
{
	struct cidr_key key = { .prefixlen = CIDR_KEY_BITS };
	const struct cidr_value *known;

	key.family = address_is_v4(remote) ? 4 : 6;
	__builtin_memcpy(key.address, remote->bytes, sizeof(key.address));
	known = cidr_map.lookup(&key);

	if (!known)
		return;
	peer->cidr = known->cidr;
	peer->in_cluster = known->flags & CIDR_IN_CLUSTER;
}

static __always_inline __u32 policy_probe_peer(__u32 group, __u32 peer,
					       const struct policy_question *question,
					       int uses_range)
{
	struct policy_key key = { .group = group, .peer = peer, .direction = question->direction };
	struct range_key range = {};
	const struct rule_value *hit;

	key.protocol = question->protocol;
	if (question->port) {
		key.port = question->port;
		hit = pol_map.lookup(&key);
		if (hit)
			return hit->rule;
		key.port = 0;
	}
	if (question->port && uses_range) {
		range.prefixlen = RANGE_KEY_BITS;
		range.group = group;
		range.peer = peer;
		range.protocol = question->protocol;
		range.direction = question->direction;
		range.port = question->port;
		hit = rng_map.lookup(&range);
		if (hit)
			return hit->rule;
	}
	hit = pol_map.lookup(&key);
	if (hit)
		return hit->rule;
	key.protocol = PROTOCOL_ANY;
	hit = pol_map.lookup(&key);
	return hit ? hit->rule : 0;
}

#define POLICY_WALL_PEERS 2
#define POLICY_PEERS 4

/*
 * The rule that lets in, or 0. The order of peers and ports is written down in enforcer/tables.py:
 * identity, tenant, CIDR, any. The wall knows only the first POLICY_WALL_PEERS kinds of peer.
 */
static __always_inline __u32 policy_probe(__u32 group, const struct policy_peer *peer, int peers,
					  const struct policy_question *question, int uses_range)
{
	__u32 candidate, rule;
	int i;

	for (i = 0; i < POLICY_PEERS; i++) {
		if (i >= peers)
			break;
		candidate = PEER_ANY;
		if (i == 0)
			candidate = peer->identity;
		else if (i == 1 && peer->tenant)
			candidate = PEER_TENANT | peer->tenant;
		else if (i == 2 && peer->cidr)
			candidate = PEER_CIDR | peer->cidr;
		if (candidate == PEER_ANY && i != POLICY_PEERS - 1)
			continue;
		rule = policy_probe_peer(group, candidate, question, uses_range);
		if (rule)
			return rule;
	}
	return 0;
}

/*
 * Who cannot be named is not let in: a node address without a local socket stands for anybody, and
 * so does an address of the pod ranges that no cache knows. What comes from outside the cluster is
 * not the wall's business.
 */
static __always_inline enum reason policy_wall(const struct endpoint *endpoint,
					       const struct policy_peer *peer,
					       const struct policy_question *question)
{
	int node = peer->identity == IDENTITY_HOST || peer->identity == IDENTITY_REMOTE_NODE;

	if (peer->identity == IDENTITY_UNKNOWN)
		return peer->in_cluster ? DROP_UNKNOWN_SENDER : FORWARD_NONE;
	if (node && (endpoint->flags & EP_ALLOW_MASKED))
		return FORWARD_NONE;
	if (policy_probe(endpoint->wall, peer, POLICY_WALL_PEERS, question,
			 endpoint->flags & EP_USES_RANGE))
		return FORWARD_NONE;
	return node ? DROP_UNKNOWN_SENDER : DROP_TENANT_WALL;
}

static __always_inline void policy_rules(struct policy_answer *answer,
					 const struct endpoint *endpoint,
					 const struct policy_peer *peer,
					 const struct policy_question *question)
{
	if (!policy_isolated(endpoint, question->direction)) {
		answer->reason = FORWARD_NOT_ISOLATED;
		return;
	}
	answer->group = endpoint->group;
	answer->rule = policy_probe(endpoint->group, peer, POLICY_PEERS, question,
				    endpoint->flags & EP_USES_RANGE);
	if (answer->rule)
		answer->reason = FORWARD_POLICY_ALLOWED;
	else if (question->kind == PACKET_OTHER)
		answer->reason = DROP_UNKNOWN_L4_PROTOCOL;
	else
		answer->reason = DROP_POLICY_DENIED;
}

static __always_inline void policy_judge(struct policy_answer *answer,
					 const struct endpoint *endpoint,
					 struct policy_question *question)
{
	int ingress = question->direction == DIR_INGRESS;
	struct policy_peer peer = {};
	enum reason wall = FORWARD_NONE;

	policy_find_peer(&peer, &question->remote);
	if ((endpoint->flags & EP_USES_CIDR) || (endpoint->flags & EP_WALL))
		policy_find_cidr(&peer, &question->remote);
	if (!(endpoint->flags & EP_USES_CIDR))
		peer.cidr = 0;
	answer->identity = peer.identity;
	answer->tenant = peer.tenant;
	answer->rule = 0;
	answer->group = 0;
	answer->audit = FORWARD_NONE;
	answer->masked = ingress && peer.identity == IDENTITY_HOST;
	if (!ingress && peer.identity == IDENTITY_HOST) {
		answer->reason = FORWARD_HOST;
		return;
	}
	if (ingress && (endpoint->flags & EP_WALL))
		wall = policy_wall(endpoint, &peer, question);
	if (wall && !(endpoint->flags & EP_WALL_AUDIT)) {
		answer->reason = wall;
		answer->group = endpoint->wall;
		return;
	}
	policy_rules(answer, endpoint, &peer, question);
	answer->audit = wall;
}

#endif
