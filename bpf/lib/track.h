/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Packets that are let through, or not, because of earlier ones: connections, ICMP errors about
 * them, and fragments. The rules of age and direction are in conntrack.h.
 */
#ifndef RINGFENCE_TRACK_H
#define RINGFENCE_TRACK_H

/* Counts one, unless this window is full. Two at the same time may count as one. */
static __always_inline int share_take(struct share_value *share, __u64 quota)
{
	__u64 window = ct_now() >> SHARE_WINDOW;

	if (share->window != window) {
		share->window = window;
		share->had = 0;
	}
	if (share->had >= quota)
		return 0;
	share->had += 1;
	return 1;
}

/*
 * A packet to an unused address of the pod ranges makes a node look for a neighbour that does not
 * exist, in a table that all pods share: only a few are allowed per window.
 */
static __always_inline int track_may_look(const struct endpoint *endpoint)
{
	__u32 slot = endpoint->endpoint % NOBODY_SLOTS;
	struct share_value *share = nobody_map.lookup(&slot);

	return !share || share_take(share, NOBODY_QUOTA);
}

static __always_inline void track_frag_key(struct frag_key *key, __u32 endpoint,
					   const struct packet *packet, enum direction direction)
{
	key->endpoint = endpoint;
	key->source = packet->source;
	key->destination = packet->destination;
	key->id = packet->fragment_id;
	key->protocol = packet->fragment_protocol;
	key->direction = direction;
}

static __always_inline void track_first_fragment(struct frag_key *key, const struct packet *packet)
{
	struct frag_value value = {
		.last = ct_now(),
		.source_port = packet->source_port,
		.destination_port = packet->destination_port,
		.icmp_type = packet->icmp_type,
		.icmp_code = packet->icmp_code,
		.kind = packet->kind,
		.protocol = packet->protocol,
	};

	value.proof = PROOF_OF(proof_over(PROOF_SEED, key, sizeof(*key)), &value);
	/* If this fails, the later fragments are refused. */
	frag_map.update(key, &value);
}

static __always_inline enum reason track_later_fragment(struct scratch *scratch,
							struct frag_key *key)
{
	const struct frag_value *first = &scratch->first;
	struct packet *packet = &scratch->packet;

	if (!lookup_fragment(scratch, key) || ct_now() - first->last > CT_TIMEOUT_FRAGMENT)
		return DROP_FIRST_LOGICAL_DATAGRAM_FRAGMENT_NOT_FOUND;
	packet->source_port = first->source_port;
	packet->destination_port = first->destination_port;
	packet->icmp_type = first->icmp_type;
	packet->icmp_code = first->icmp_code;
	packet->kind = first->kind;
	packet->protocol = first->protocol;
	return FORWARD_NONE;
}

/*
 * A TCP fragment that starts at byte 8 exists only to rewrite the flags of a header that was
 * already judged.
 */
static __always_inline enum reason track_fragment(struct scratch *scratch, __u32 endpoint,
						  enum direction direction)
{
	const struct packet *packet = &scratch->packet;
	struct frag_key key = {};

	if (packet->fragment_protocol == PROTOCOL_TCP && packet->fragment == FRAGMENT_LATER &&
	    packet->fragment_offset < 20)
		return DROP_IP_FRAGMENTATION_NOT_SUPPORTED;
	track_frag_key(&key, endpoint, packet, direction);
	if (packet->fragment == FRAGMENT_LATER)
		return track_later_fragment(scratch, &key);
	track_first_fragment(&key, packet);
	return FORWARD_NONE;
}

/* How much of a packet an ICMP error quotes: RFC 1812 and RFC 4443. */
#define TRACK_ERROR_IPV4 576
#define TRACK_ERROR_IPV6 1280

static __always_inline int track_is_short(struct __sk_buff *skb, const struct packet *packet)
{
	__u32 length = skb->len - sizeof(struct parse_ethernet_header);

	return length <= (packet->family == 4 ? TRACK_ERROR_IPV4 : TRACK_ERROR_IPV6);
}

/*
 * Who may send an ICMP error about a packet: its destination, and what may lie on its path: this
 * node, other nodes, and routers, whose addresses are outside the cluster. Never another pod.
 */
static __always_inline int track_may_complain(const struct endpoint *endpoint,
					      struct scratch *scratch, enum direction direction)
{
	struct policy_peer *peer = &scratch->peer;
	struct packet *packet = &scratch->packet;

	if (address_equal(&packet->source, &scratch->quoted.destination))
		return 1;
	if (direction == DIR_EGRESS)
		return 0;
	if (packet->local)
		return 1;
	policy_find_peer(scratch, &packet->source);
	if (peer->identity == IDENTITY_HOST || peer->identity == IDENTITY_REMOTE_NODE)
		return 1;
	if (peer->identity != IDENTITY_UNKNOWN)
		return 0;
	policy_find_cidr(peer, endpoint, &packet->source);
	return !peer->around;
}

/*
 * An ICMP error passes if it is about a connection that may go on, and its sender may send it; it
 * creates no entry. All other ICMP is judged by the policies.
 */
static __always_inline enum reason track_icmp_error(struct __sk_buff *skb,
						    const struct endpoint *endpoint,
						    struct scratch *scratch,
						    enum direction direction)
{
	const struct packet *packet = &scratch->packet;
	struct packet *quoted = &scratch->quoted;
	const struct ct_value *entry = &scratch->entry;
	struct ct_key *key = &scratch->key;
	enum reason reason;

	if (packet->fragment || !track_is_short(skb, packet))
		return FORWARD_NONE;
	__builtin_memset(quoted, 0, sizeof(*quoted));
	if (packet->family == 4)
		reason = parse_ipv4(skb, packet->l4 + 8, quoted, PARSE_QUOTED);
	else
		reason = parse_ipv6(skb, packet->l4 + 8, quoted, PARSE_QUOTED);
	if (reason || quoted->fragment == FRAGMENT_LATER)
		return FORWARD_NONE;
	if (!address_equal(&quoted->source,
			   &packet->destination)) /* errors go to the sender of the quoted packet */
		return FORWARD_NONE;
	scratch->course.complains = track_may_complain(endpoint, scratch, direction);
	forget();
	if (!scratch->course.complains)
		return FORWARD_NONE;
	ct_key_of_quoted(key, endpoint->endpoint, quoted, direction);
	if (!lookup_connection(scratch, key) || ct_expired(entry, quoted->protocol, ct_now()))
		return FORWARD_NONE;
	if (!ct_is_current(entry, endpoint->generation, lookup_tenure(&key->remote)))
		return FORWARD_NONE;
	scratch->outcome.rule = entry->rule;
	scratch->outcome.group = entry->group;
	return FORWARD_RELATED;
}

#endif
