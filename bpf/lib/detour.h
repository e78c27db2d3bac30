/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The proxy's veth: from_proxy at its end on the node (tc ingress), proxy_in and proxy_out at the
 * end in the proxy's namespace (tc ingress and egress). Pods cannot get there: these programs only
 * sort what to_pod and from_pod have judged, or are about to judge.
 */
#ifndef RINGFENCE_DETOUR_H
#define RINGFENCE_DETOUR_H

#define PACKET_TO_US 0
#define TCP_STATE_LISTEN 10
#define TCP_STATE_TIME_WAIT 6

/* What these programs need of a packet; the order of its halves is that of the wire. */
struct detour {
	struct address source;
	struct address destination;
	__be16 source_port;
	__be16 destination_port;
	__u8 family;
	__u8 protocol;
	__u8 tcp_flags;
	__u8 pad;
};

/* 0 when it is IP; ports only of TCP that is whole and has them where they are mostly. */
static __always_inline int detour_parse(struct __sk_buff *skb, struct detour *packet)
{
	struct parse_ipv4_header v4;
	struct parse_ipv6_header v6;
	struct parse_tcp_header tcp;
	__u32 l4 = sizeof(struct parse_ethernet_header);

	if (skb->protocol == net16(ETHERTYPE_IPV4)) {
		if (bpf_skb_load_bytes(skb, l4, &v4, sizeof(v4)))
			return -1;
		packet->family = 4;
		address_from_v4(&packet->source, v4.source);
		address_from_v4(&packet->destination, v4.destination);
		packet->protocol = v4.protocol;
		l4 += (v4.version_ihl & 15) * 4U;
		if (v4.fragment & net16(0x3fff))
			return 0;
	} else if (skb->protocol == net16(ETHERTYPE_IPV6)) {
		if (bpf_skb_load_bytes(skb, l4, &v6, sizeof(v6)))
			return -1;
		packet->family = 6;
		packet->source = v6.source;
		packet->destination = v6.destination;
		packet->protocol = v6.next;
		l4 += sizeof(v6);
	} else {
		return -1;
	}
	if (packet->protocol != PROTOCOL_TCP || bpf_skb_load_bytes(skb, l4, &tcp, PARSE_TCP_BYTES))
		return 0;
	packet->source_port = tcp.source_port;
	packet->destination_port = tcp.destination_port;
	packet->tcp_flags = tcp.tcp_flags;
	return 0;
}

/* A socket of this namespace by both ends of its connection; the caller releases it. */
static __always_inline struct bpf_sock *detour_socket(struct __sk_buff *skb,
						      const struct detour *packet)
{
	struct bpf_sock_tuple tuple = {};

	if (packet->family == 4) {
		tuple.ipv4.saddr = packet->source.quads[3];
		tuple.ipv4.daddr = packet->destination.quads[3];
		tuple.ipv4.sport = packet->source_port;
		tuple.ipv4.dport = packet->destination_port;
		return bpf_skc_lookup_tcp(skb, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
	}
	__builtin_memcpy(tuple.ipv6.saddr, packet->source.bytes, sizeof(packet->source));
	__builtin_memcpy(tuple.ipv6.daddr, packet->destination.bytes, sizeof(packet->destination));
	tuple.ipv6.sport = packet->source_port;
	tuple.ipv6.dport = packet->destination_port;
	return bpf_skc_lookup_tcp(skb, &tuple, sizeof(tuple.ipv6), BPF_F_CURRENT_NETNS, 0);
}

/* Whether a packet belongs to a connection that the proxy has. */
static __always_inline int detour_is_known(struct __sk_buff *skb, const struct detour *packet)
{
	struct bpf_sock *found = detour_socket(skb, packet);
	int syn = (packet->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
	__u32 state;

	if (!found)
		return 0;
	state = found->state;
	bpf_sk_release(found);
	return state != TCP_STATE_LISTEN && !(state == TCP_STATE_TIME_WAIT && syn);
}

/* Where the proxy listens for a rule set: at the loopback's address of the family. */
static __always_inline struct bpf_sock *detour_listener(struct __sk_buff *skb, __u8 family,
							__u16 port)
{
	struct detour asked = { .family = family };

	if (family == 4) {
		address_from_v4(&asked.source, net32(0x7f000001));
		asked.destination = asked.source;
	} else {
		asked.source.quads[3] = asked.destination.quads[3] = net32(1);
	}
	asked.source_port = net16(1);
	asked.destination_port = net16(port);
	return detour_socket(skb, &asked);
}

/*
 * Into the proxy. A packet of no connection goes to the listener of its rule set, where a SYN opens
 * one and anything else is answered by a reset; without a listener the namespace resets both.
 */
int proxy_in(struct __sk_buff *skb)
{
	struct parse_ethernet_header tag;
	struct detour packet = {};
	struct bpf_sock *listener;
	__u8 leg;
	int refused;

	if (bpf_skb_load_bytes(skb, 0, &tag, sizeof(tag)) || tag.source[0] != TAG_MAC ||
	    detour_parse(skb, &packet))
		return VERDICT_SHOT;
	leg = tag.source[1] & LEG_BITS;
	bpf_skb_change_type(skb, PACKET_TO_US);
	/* Sockets take it over, and resets that no socket sends. */
	skb->mark = tag.source[1] & (LEG_BITS | TAG_EGRESS);
	if (leg != LEG_DOWN || !packet.source_port)
		return VERDICT_CONTINUE;
	if (!(tag.source[1] & TAG_ANEW) && detour_is_known(skb, &packet))
		return VERDICT_CONTINUE;
	listener = detour_listener(skb, packet.family, (__u16)tag.source[4] << 8 | tag.source[5]);
	if (!listener)
		return VERDICT_CONTINUE;
	refused = bpf_sk_assign(skb, listener, 0);
	bpf_sk_release(listener);
	return refused ? VERDICT_SHOT : VERDICT_CONTINUE;
}

/* Out of the proxy: marks do not survive the way, MACs do. */
int proxy_out(struct __sk_buff *skb)
{
	__u8 mac[6] = { TAG_MAC, skb->mark & (LEG_BITS | TAG_EGRESS), 0, 0, 0, 0 };

	if (!(mac[1] & LEG_BITS) || bpf_skb_store_bytes(skb, 6, mac, sizeof(mac), 0))
		return VERDICT_SHOT;
	return VERDICT_CONTINUE;
}

/* Back on the node: into the pod by to_pod, or as if it came out of the pod by from_pod. */
int from_proxy(struct __sk_buff *skb)
{
	struct parse_ethernet_header tag;
	struct detour packet = {};
	const struct resident_value *pod;
	const struct proxy_value *proxy;
	struct scratch *scratch;
	__u32 zero = 0;
	__u8 leg;
	int enters;

	if (bpf_skb_load_bytes(skb, 0, &tag, sizeof(tag)) || tag.source[0] != TAG_MAC ||
	    detour_parse(skb, &packet) || packet.protocol != PROTOCOL_TCP)
		return VERDICT_SHOT;
	leg = tag.source[1] & LEG_BITS;
	enters = (leg == LEG_UP) == !(tag.source[1] & TAG_EGRESS);
	proxy = proxy_map.lookup(&zero);
	scratch = scratch_map.lookup(&zero);
	if (!proxy || !scratch || !leg || leg == LEG_BITS ||
	    !lookup_resident(scratch, enters ? &packet.destination : &packet.source))
		return VERDICT_SHOT;
	pod = &scratch->resident;
	skb->mark = proxy->secret | leg;
	if (bpf_skb_store_bytes(skb, enters ? 0 : 6, pod->mac, 6, 0) ||
	    bpf_skb_store_bytes(skb, enters ? 6 : 0, pod->node_mac, 6, 0))
		return VERDICT_SHOT;
	return bpf_redirect(pod->interface, enters ? 0 : BPF_F_INGRESS);
}

#endif
