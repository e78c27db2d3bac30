/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * A node decapsulates what arrives at its tunnels, and the inner packet may have any source: pods
 * may not send encapsulated packets to a node, unless the tenant file allows their namespace to.
 * The agent provides the UDP ports of tunnels.
 */
#ifndef RINGFENCE_ENCAPSULATION_H
#define RINGFENCE_ENCAPSULATION_H

#define PROTOCOL_IPIP 4
#define PROTOCOL_IPV6 41
#define PROTOCOL_GRE 47
#define PROTOCOL_ESP 50
#define PROTOCOL_AH 51
#define PROTOCOL_ETHERIP 97
#define PROTOCOL_L2TP 115

static __always_inline int encapsulation_of_port(__be16 port)
{
	__u32 word = host16(port) / 64;
	const __u64 *ports = tunnel_map.lookup(&word);

	return ports && (*ports >> (host16(port) & 63) & 1);
}

static __always_inline int encapsulation_in(const struct packet *packet)
{
	switch (packet->protocol) {
	case PROTOCOL_UDP:
		return packet->kind == PACKET_PORTS &&
		       encapsulation_of_port(packet->destination_port);
	case PROTOCOL_IPIP:
	case PROTOCOL_IPV6:
	case PROTOCOL_GRE:
	case PROTOCOL_ESP:
	case PROTOCOL_AH:
	case PROTOCOL_ETHERIP:
	case PROTOCOL_L2TP:
		return 1;
	default:
		return 0;
	}
}

/* A group or the link may be the node, too. */
static __always_inline int encapsulation_reaches_node(struct scratch *scratch)
{
	struct address *to = &scratch->packet.destination;

	if (scratch->packet.family == 4 &&
	    ((to->bytes[12] & 0xf0) == 0xe0 || to->quads[3] == net32(0xffffffff)))
		return 1;
	if (scratch->packet.family == 6 && (to->bytes[0] == 0xff || address_is_link_local(to)))
		return 1;
	policy_find_peer(scratch, to);
	return scratch->peer.identity == IDENTITY_HOST ||
	       scratch->peer.identity == IDENTITY_REMOTE_NODE;
}

/*
 * What leaves a pod and cannot be parsed may be encapsulated, too. `reason` is the result of parser
 * and fragments; FORWARD_NONE: go on.
 */
static __always_inline enum reason encapsulation_leaves(struct scratch *scratch,
							const struct endpoint *endpoint,
							enum reason reason)
{
	int unreadable = verdict_is_drop(reason);

	if (!unreadable && !encapsulation_in(&scratch->packet))
		return FORWARD_NONE;
	if (endpoint->flags & EP_ENCAPSULATES || !encapsulation_reaches_node(scratch))
		return FORWARD_NONE;
	return unreadable ? reason : DROP_ENCAP_PROHIBITED;
}

#endif
