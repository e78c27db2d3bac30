/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * May this conversation begin? Tenant wall first (an AND that no policy can widen), then policies.
 * The first hit decides: its entry combines all rules for that peer and port, denying ones first.
 *
 * The question is always put in the direction of the opener: `remote` is the other end and `port`
 * the port that was called, whoever sent the packet at hand.
 */
#ifndef RINGFENCE_POLICY_H
#define RINGFENCE_POLICY_H

static __always_inline int policy_isolated(const struct endpoint *endpoint,
					   enum direction direction)
{
	return !!(endpoint->flags &
		  (direction == DIR_INGRESS ? EP_ISOLATED_INGRESS : EP_ISOLATED_EGRESS));
}

static __always_inline int policy_only_reports(const struct endpoint *endpoint,
					       enum direction direction)
{
	return !!(endpoint->flags &
		  (direction == DIR_INGRESS ? EP_AUDIT | EP_AUDIT_INGRESS : EP_AUDIT));
}

/* Can anything in this direction refuse a packet, and not only report it? */
static __always_inline int policy_cuts(const struct endpoint *endpoint, enum direction direction)
{
	__u32 wall = endpoint->flags & (EP_WALL | EP_WALL_AUDIT);

	if (direction == DIR_INGRESS && wall == EP_WALL)
		return 1;
	if (!policy_isolated(endpoint, direction))
		return 0;
	if ((endpoint->flags & EP_USES_DENY) && !(endpoint->flags & EP_AUDIT))
		return 1;
	return !policy_only_reports(endpoint, direction);
}

/* An address of a quarantined namespace keeps its identity but belongs to no tenant. */
static __always_inline void policy_find_peer(struct scratch *scratch, struct address *remote)
{
	int found = lookup_address(scratch, remote);
	const struct address_value *known = &scratch->address;
	struct policy_peer *peer = &scratch->peer;

	__builtin_memset(peer, 0, sizeof(*peer));
	if (!found)
		return;
	peer->identity = known->identity;
	if (!(known->flags & ADDR_QUARANTINE))
		peer->tenant = known->tenant;
	peer->walled = known->tenant | (known->flags & (ADDR_QUARANTINE | ADDR_MOVING));
	peer->service = known->flags & ADDR_SERVICE;
	if (known->flags & ADDR_AUDIT)
		peer->walled = 0;
}

static __always_inline void policy_find_cidr(struct policy_peer *peer,
					     const struct endpoint *endpoint,
					     const struct address *remote)
{
	struct cidr_key key = { .prefixlen = CIDR_KEY_BITS };
	const struct cidr_value *known;

	key.trie = endpoint->tenant << 1 | !address_is_v4(remote);
	__builtin_memcpy(key.address, remote->bytes, sizeof(key.address));
	known = cidr_map.lookup(&key);

	if (!known)
		return;
	peer->cidr = known->cidr;
	peer->around = known->flags;
}

/* Some policies tell nodes and addresses outside the cluster from other peers. */
static __always_inline void policy_find_place(struct policy_peer *peer,
					      const struct endpoint *endpoint)
{
	peer->place = 0;
	if ((endpoint->flags & EP_USES_PLACES) && peer->identity < IDENTITY_FIRST_POD)
		peer->place = PEER_PLACE | peer->identity;
}

/* The peer of the longest matching block of an address. */
static __always_inline __u32 policy_cidr_peer(const struct policy_peer *peer)
{
	if (!peer->cidr)
		return PEER_ANY;
	if (!peer->place)
		return PEER_CIDR | peer->cidr;
	return PEER_CIDR | (peer->identity + 1) << CIDR_PLACE_SHIFT | peer->cidr;
}

/* One peer at every port entry that covers the question's; the rule is left in peer->rule. */
static __always_inline void policy_probe_peer(struct scratch *scratch, __u32 group, __u32 candidate,
					      const struct endpoint *endpoint)
{
	const struct policy_question *question = &scratch->question;
	struct policy_peer *peer = &scratch->peer;
	const struct range_value *hit;
	struct policy_key key = {
		.group = group,
		.peer = candidate,
		.port = question->port,
		.protocol = question->protocol,
		.direction = question->direction,
	};
	struct range_key range = {
		.prefixlen = RANGE_KEY_BITS,
		.group = group,
		.peer = candidate,
		.protocol = question->protocol,
		.direction = question->direction,
		.port = question->port,
	};

	peer->rule = lookup_rule(scratch, &key, endpoint);
	forget();
	if (peer->rule)
		return;
	if (question->port && (endpoint->flags & EP_USES_RANGE)) {
		hit = rng_map.lookup(&range);
		if (hit)
			peer->rule = hit->rule;
	}
	forget();
	if (peer->rule)
		return;
	if (question->port) {
		key.port = 0;
		peer->rule = lookup_rule(scratch, &key, endpoint);
	}
	forget();
	if (peer->rule)
		return;
	key.port = 0;
	key.protocol = PROTOCOL_ANY;
	peer->rule = lookup_rule(scratch, &key, endpoint);
}

#define POLICY_WALL_PEERS 2

/*
 * The rule that decides, or 0. The order of peers and ports is defined in
 * enforcer/policy/tables.py: identity, tenant, CIDR, place, any. The wall knows only the first
 * POLICY_WALL_PEERS kinds of peer.
 */
static __always_inline __u32 policy_probe(struct scratch *scratch, __u32 group, __u32 peers,
					  const struct endpoint *endpoint)
{
	struct policy_peer *peer = &scratch->peer;
	__u32 i;

	peer->candidates[0] = peer->identity;
	peer->candidates[1] = peer->tenant ? PEER_TENANT | peer->tenant : PEER_ANY;
	peer->candidates[2] = policy_cidr_peer(peer);
	peer->candidates[3] = peer->place;
	peer->candidates[4] = PEER_ANY;
	peer->probed = peers;
	peer->rule = 0;
#pragma clang loop unroll(disable)
	for (i = 0; i < POLICY_PEERS; i++) {
		forget();
		if (i >= peer->probed || peer->rule)
			break;
		if (peer->candidates[i] != PEER_ANY || i == POLICY_PEERS - 1)
			policy_probe_peer(scratch, group, peer->candidates[i], endpoint);
	}
	forget();
	return peer->rule;
}

static __always_inline int policy_is_node(const struct policy_peer *peer)
{
	return peer->identity == IDENTITY_HOST || peer->identity == IDENTITY_REMOTE_NODE;
}

/*
 * An unidentified sender is not let in: a node address without a local socket may hide anyone, and
 * so may an address of the pod ranges that is not in the maps. What comes from outside the cluster
 * is not the wall's business.
 *
 * For egress the same is asked of the wall around the other end, as far as it is about this pod
 * (the group endpoint->reach); the pod's own tenant needs no entries there.
 */
static __always_inline enum reason policy_wall(struct scratch *scratch,
					       const struct endpoint *endpoint, int ingress)
{
	const struct policy_peer *peer = &scratch->peer;
	__u32 closed = ingress ? CIDR_IN_CLUSTER | CIDR_CROWDED : CIDR_IN_CLUSTER;

	if (!(endpoint->flags & (ingress ? EP_WALL : EP_REACH)))
		return FORWARD_NONE;
	if (peer->identity == IDENTITY_UNKNOWN)
		return peer->around & closed ? DROP_UNKNOWN_SENDER : FORWARD_NONE;
	if (ingress && policy_is_node(peer) && (endpoint->flags & EP_ALLOW_MASKED))
		return FORWARD_NONE;
	if (!ingress && !peer->walled)
		return FORWARD_NONE;
	if (!ingress && peer->tenant && peer->tenant == endpoint->tenant &&
	    !(endpoint->flags & EP_QUARANTINE))
		return FORWARD_NONE;
	forget();
	if (policy_probe(scratch, ingress ? endpoint->wall : endpoint->reach,
			 ingress ? POLICY_WALL_PEERS : POLICY_PEERS, endpoint))
		return FORWARD_NONE;
	return policy_is_node(peer) ? DROP_UNKNOWN_SENDER : DROP_TENANT_WALL;
}

static __always_inline void policy_rules(struct scratch *scratch, struct policy_answer *answer,
					 const struct endpoint *endpoint)
{
	const struct policy_question *question = &scratch->question;
	__u32 rule;

	if (!policy_isolated(endpoint, question->direction)) {
		answer->reason = FORWARD_NOT_ISOLATED;
		return;
	}
	if (question->kept) {
		answer->reason = question->kept;
		answer->rule = question->kept_rule;
		answer->group = question->kept_group;
		return;
	}
	answer->group = endpoint->group;
	rule = policy_probe(scratch, endpoint->group, POLICY_PEERS, endpoint);
	answer->rule = rule & RULE_NUMBER;
	if (rule & RULE_DENY)
		answer->reason = DROP_POLICY_DENY;
	else if ((rule & RULE_REDIRECT) && !policy_only_reports(endpoint, question->direction))
		answer->reason = FORWARD_REDIRECTED;
	else if (rule)
		answer->reason = FORWARD_POLICY_ALLOWED;
	else if (question->kind == PACKET_OTHER)
		answer->reason = DROP_UNKNOWN_L4_PROTOCOL;
	else
		answer->reason = DROP_POLICY_DENIED;
}

/*
 * A packet that the wall at the other end keeps out goes there to be dropped, but opens nothing
 * here: what comes back does not count as an answer.
 */
static __always_inline void policy_judge_peer(struct scratch *scratch, struct policy_answer *answer,
					      const struct endpoint *endpoint,
					      enum direction direction)
{
	const struct policy_question *question = &scratch->question;
	struct policy_peer *peer = &scratch->peer;

	if ((endpoint->flags & EP_USES_CIDR) ||
	    (peer->identity == IDENTITY_UNKNOWN && (endpoint->flags & (EP_WALL | EP_REACH))))
		policy_find_cidr(peer, endpoint, &question->remote);
	forget();
	if (!(endpoint->flags & EP_USES_CIDR))
		peer->cidr = 0;
	forget();
	policy_find_place(peer, endpoint);
	forget();
	answer->identity = peer->identity;
	answer->tenant = peer->tenant;
	answer->rule = 0;
	answer->group = 0;
	answer->audit = FORWARD_NONE;
	answer->unheld = 0;
	answer->masked = direction == DIR_INGRESS && peer->identity == IDENTITY_HOST;
	if (direction == DIR_EGRESS && peer->identity == IDENTITY_HOST) {
		answer->reason = FORWARD_HOST;
		return;
	}
	forget();
	peer->wall = policy_wall(scratch, endpoint, direction == DIR_INGRESS);
	forget();
	if (direction == DIR_EGRESS) {
		answer->unheld = !!peer->wall;
	} else if (peer->wall && !(endpoint->flags & EP_WALL_AUDIT)) {
		answer->reason = peer->wall;
		answer->group = endpoint->wall;
		return;
	} else {
		answer->audit = peer->wall;
	}
	forget();
	policy_rules(scratch, answer, endpoint);
}

/*
 * Only an address without an owner can be a Service's. A port that found no room in the map counts
 * as one without backends.
 */
static __always_inline int policy_find_service(struct scratch *scratch,
					       const struct endpoint *endpoint)
{
	const struct policy_question *question = &scratch->question;
	const struct policy_peer *peer = &scratch->peer;
	struct service_key key = {};

	if (!(endpoint->flags & (EP_ISOLATED_EGRESS | EP_REACH)) ||
	    peer->identity != IDENTITY_UNKNOWN || question->kind != PACKET_PORTS || !question->port)
		return 0;
	key.address = question->remote;
	key.port = question->port;
	key.protocol = question->protocol;
	if (lookup_service(scratch, &key))
		return 1;
	scratch->service.count = 0;
	return !!peer->service;
}

static __always_inline int policy_differs(const struct policy_answer *answer,
					  const struct policy_answer *candidate)
{
	return answer->reason == FORWARD_REDIRECTED && candidate->reason == FORWARD_REDIRECTED &&
	       answer->rule != candidate->rule;
}

/*
 * Which backend a call to a Service meets is decided behind our hook, so all of them must be
 * allowed: the first that is refused decides, else the first that is redirected, else the first. A
 * request is judged before one is met: two rule sets are one too many. One without backends is
 * closed to pods whose egress is isolated. A wall around any of them keeps the connection from
 * being held.
 */
static __always_inline void policy_judge_service(struct scratch *scratch,
						 const struct endpoint *endpoint)
{
	const struct service_value *service = &scratch->service;
	struct policy_question *question = &scratch->question;
	struct policy_answer *candidate = &scratch->candidate;
	__u32 i, index;

	__builtin_memset(&scratch->answer, 0, sizeof(scratch->answer));
	scratch->answer.reason = FORWARD_NOT_ISOLATED;
	if (policy_isolated(endpoint, DIR_EGRESS)) {
		scratch->answer.group = endpoint->group;
		scratch->answer.reason = DROP_POLICY_DENIED;
	}
#pragma clang loop unroll(disable)
	for (i = 0; i < SERVICE_BACKENDS; i++) {
		forget();
		if (i >= service->count)
			break;
		index = i;
		asm volatile(""
			     : "+r"(index)); /* else clang counts in a way that is not followed */
		index &= SERVICE_BACKENDS - 1;
		question->remote = service->backends[index].address;
		question->port = service->backends[index].port;
		policy_find_peer(scratch, &question->remote);
		forget();
		policy_judge_peer(scratch, candidate, endpoint, DIR_EGRESS);
		forget();
		candidate->unheld |= scratch->answer.unheld;
		forget();
		if (policy_differs(&scratch->answer, candidate)) {
			candidate->reason = DROP_POLICY_DENIED;
			candidate->rule = 0;
		}
		forget();
		if (!i || verdict_is_drop(candidate->reason) ||
		    (candidate->reason == FORWARD_REDIRECTED &&
		     scratch->answer.reason != FORWARD_REDIRECTED))
			scratch->answer = *candidate;
		forget();
		scratch->answer.unheld = candidate->unheld;
		if (verdict_is_drop(candidate->reason))
			break;
	}
}

/*
 * Under audit a denial by policies is only reported; the wall's was first. What a rule denies is
 * dropped all the same where only a policy on trial reports.
 */
static __always_inline void policy_audit(struct policy_answer *answer,
					 const struct endpoint *endpoint, enum direction direction)
{
	if (!policy_only_reports(endpoint, direction) || !verdict_is_drop(answer->reason))
		return;
	if (answer->reason == DROP_POLICY_DENY && !(endpoint->flags & EP_AUDIT))
		return;
	if (!answer->audit)
		answer->audit = answer->reason;
	answer->reason = FORWARD_NOT_ISOLATED;
}

static __always_inline void policy_judge(struct scratch *scratch, const struct endpoint *endpoint)
{
	policy_find_peer(scratch, &scratch->question.remote);
	forget();
	if (scratch->question.direction == DIR_INGRESS)
		policy_judge_peer(scratch, &scratch->answer, endpoint, DIR_INGRESS);
	else if (policy_find_service(scratch, endpoint))
		policy_judge_service(scratch, endpoint);
	else
		policy_judge_peer(scratch, &scratch->answer, endpoint, DIR_EGRESS);
	forget();
	policy_audit(&scratch->answer, endpoint, scratch->question.direction);
	forget();
}

#endif
