/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The link between a pod and its node. What leaves a pod is an allow list: frames of its own MAC,
 * IP of its own addresses, and the ARP, neighbour discovery and DHCPv6 that it needs to find its
 * neighbours, each with nothing in it that the pod could choose. What enters is for the pod, and
 * nothing on the link may claim its addresses, or the node's.
 *
 * A pod's link-local address is the one that follows from its MAC.
 */
#ifndef RINGFENCE_LINK_H
#define RINGFENCE_LINK_H

#define ETHERNET_SHORTEST 60 /* shorter frames are filled up with zeros */
#define ARP_LENGTH 42
#define ARP_REQUEST 1
#define ARP_REPLY 2
#define ND_LENGTH 24 /* of a solicitation or an advertisement, without options */
#define ND_OPTION_SOURCE 1
#define ND_OPTION_TARGET 2
#define ND_OPTION_NONCE 14
#define ND_OPTIONS 3
#define DHCPV6_CLIENT 546
#define DHCPV6_SERVER 547

struct link_arp {
	__be16 hardware;
	__be16 protocol;
	__u8 hardware_length;
	__u8 protocol_length;
	__be16 operation;
	__u8 sender_mac[6];
	__u8 sender_ip[4];
};

struct link_nd {
	__u8 type;
	__u8 code;
	__be16 checksum;
	__be32 flags;
	struct address target;
};

struct link_option {
	__u8 type;
	__u8 length; /* in units of 8 bytes */
	__u8 mac[6];
};

static __always_inline int link_mac_equal(const __u8 *a, const __u8 *b)
{
	return !((a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]) | (a[4] ^ b[4]) |
		 (a[5] ^ b[5]));
}

/* Of an endpoint or a packet, where it begins a word; what follows it there does not count. */
static __always_inline __u64 link_mac_word(const __u8 *mac)
{
	return *(const __u64 *)mac << 16;
}

/* fe80::/64 and the modified EUI-64 of the MAC, as every Linux pod has it by default. */
static __always_inline int link_is_own_local(const struct endpoint *endpoint,
					     const struct address *address)
{
	const __u8 *mac = endpoint->mac;

	if (!link_mac_word(mac) || address->quads[0] != net32(0xfe800000) || address->quads[1])
		return 0;
	return !((address->bytes[8] ^ mac[0] ^ 2) | (address->bytes[9] ^ mac[1]) |
		 (address->bytes[10] ^ mac[2]) | (address->bytes[11] ^ 0xff) |
		 (address->bytes[12] ^ 0xfe) | (address->bytes[13] ^ mac[3]) |
		 (address->bytes[14] ^ mac[4]) | (address->bytes[15] ^ mac[5]));
}

static __always_inline int link_is_own(const struct endpoint *endpoint, __u8 family,
				       const struct address *address)
{
	const struct address *own = family == 6 ? &endpoint->ip6 : &endpoint->ip4;

	return !address_is_unspecified(own) && address_equal(own, address);
}

static __always_inline int link_is_own_ipv6(const struct endpoint *endpoint,
					    const struct address *address)
{
	return link_is_own(endpoint, 6, address) || link_is_own_local(endpoint, address);
}

/* Where a node is asked about one of its neighbours: ff02::1:ff00:0/104 and the last 24 bits. */
static __always_inline int link_is_solicited(const struct address *group,
					     const struct address *target)
{
	return group->quads[0] == net32(0xff020000) && !group->quads[1] &&
	       group->quads[2] == net32(1) &&
	       group->quads[3] == (target->quads[3] | net32(0xff000000));
}

static __always_inline int link_is_group(const struct address *address, __u32 number)
{
	return address->quads[0] == net32(0xff020000) && !address->quads[1] && !address->quads[2] &&
	       address->quads[3] == net32(number);
}

static __always_inline int link_is_nodes(struct scratch *scratch, struct address *address)
{
	policy_find_peer(scratch, address);
	return scratch->peer.identity == IDENTITY_HOST;
}

/* Nothing follows but the zeros that the shortest frame needs. */
static __always_inline int link_arp_ends(struct __sk_buff *skb)
{
	__u8 filling[ETHERNET_SHORTEST - ARP_LENGTH];
	__u8 something = 0;
	int i;

	if (skb->len == ARP_LENGTH)
		return 1;
	if (skb->len != ETHERNET_SHORTEST ||
	    bpf_skb_load_bytes(skb, ARP_LENGTH, filling, sizeof(filling)))
		return 0;
#pragma unroll
	for (i = 0; i < (int)sizeof(filling); i++)
		something |= filling[i];
	return !something;
}

static __always_inline enum reason link_arp_leaves(struct __sk_buff *skb,
						   const struct endpoint *endpoint,
						   const struct packet *packet)
{
	struct link_arp arp;

	if (bpf_skb_load_bytes(skb, sizeof(struct parse_ethernet_header), &arp, sizeof(arp)))
		return DROP_INVALID_PACKET_DROPPED;
	if (arp.hardware != net16(1) || arp.protocol != net16(ETHERTYPE_IPV4) ||
	    arp.hardware_length != 6 || arp.protocol_length != 4 ||
	    (arp.operation != net16(ARP_REQUEST) && arp.operation != net16(ARP_REPLY)) ||
	    !link_arp_ends(skb))
		return DROP_INVALID_PACKET_DROPPED;
	if (!link_mac_equal(arp.sender_mac, packet->mac))
		return DROP_INVALID_SOURCE_MAC;
	if (link_is_own(endpoint, 4, &packet->source))
		return FORWARD_LINK;
	/* A sender of 0.0.0.0 asks whether an address is free. */
	if (packet->source.quads[3] == 0 && arp.operation == net16(ARP_REQUEST))
		return FORWARD_LINK;
	return DROP_INVALID_SOURCE_IP;
}

/* The rest of the frame is options that say the pod's own MAC; a probe may say a nonce. */
static __always_inline int link_options_are_own(struct __sk_buff *skb, const struct packet *packet,
						__u32 offset, __u8 type, int probe)
{
	struct link_option option;
	int i;

#pragma unroll
	for (i = 0; i < ND_OPTIONS; i++) {
		if (offset == skb->len)
			return 1;
		if (bpf_skb_load_bytes(skb, offset, &option, sizeof(option)) || option.length != 1)
			return 0;
		if (probe ? option.type != ND_OPTION_NONCE
			  : option.type != type || !link_mac_equal(option.mac, packet->mac))
			return 0;
		offset += sizeof(option);
	}
	return offset == skb->len;
}

static __always_inline enum reason link_solicitation_leaves(struct __sk_buff *skb,
							    const struct endpoint *endpoint,
							    const struct packet *packet,
							    const struct link_nd *nd)
{
	int probe = address_is_unspecified(&packet->source);
	int asked = link_is_solicited(&packet->destination, &nd->target);

	if (probe && !link_is_own_ipv6(endpoint, &nd->target))
		return DROP_INVALID_SOURCE_IP;
	if (!asked && (probe || !address_equal(&packet->destination, &nd->target)))
		return DROP_INVALID_PACKET_DROPPED;
	if (nd->flags ||
	    !link_options_are_own(skb, packet, packet->l4 + ND_LENGTH, ND_OPTION_SOURCE, probe))
		return DROP_INVALID_PACKET_DROPPED;
	return FORWARD_LINK;
}

static __always_inline enum reason link_advertisement_leaves(struct __sk_buff *skb,
							     const struct endpoint *endpoint,
							     const struct packet *packet,
							     const struct link_nd *nd)
{
	int multicast = packet->destination.bytes[0] == 0xff;

	if (address_is_unspecified(&packet->source) || !link_is_own_ipv6(endpoint, &nd->target))
		return DROP_INVALID_SOURCE_IP;
	if (multicast && !link_is_group(&packet->destination, 1))
		return DROP_INVALID_PACKET_DROPPED;
	if ((nd->flags & net32(0x1fffffff)) ||
	    !link_options_are_own(skb, packet, packet->l4 + ND_LENGTH, ND_OPTION_TARGET, 0))
		return DROP_INVALID_PACKET_DROPPED;
	return FORWARD_LINK;
}

/* A pod is not a router: it solicits them, and reports its multicast groups. */
static __always_inline enum reason link_icmpv6_leaves(struct __sk_buff *skb,
						      const struct endpoint *endpoint,
						      const struct packet *packet)
{
	__u8 type = packet->icmp_type;
	__u32 plain = sizeof(struct parse_ethernet_header) + sizeof(struct parse_ipv6_header);
	struct link_nd nd = {};

	if (type == ICMPV6_MLD_REPORT || type == ICMPV6_MLD_DONE || type == ICMPV6_MLD2_REPORT)
		return FORWARD_LINK;
	if (type != ICMPV6_ROUTER_SOLICITATION && type != ICMPV6_NEIGHBOUR_SOLICITATION &&
	    type != ICMPV6_NEIGHBOUR_ADVERTISEMENT)
		return DROP_INVALID_SOURCE_IP;
	if (packet->l4 != plain || packet->icmp_code)
		return DROP_INVALID_PACKET_DROPPED;
	if (type == ICMPV6_ROUTER_SOLICITATION) {
		if (bpf_skb_load_bytes(skb, packet->l4, &nd, 8) || nd.flags ||
		    !link_is_group(&packet->destination, 2) ||
		    !link_options_are_own(skb, packet, packet->l4 + 8, ND_OPTION_SOURCE, 0))
			return DROP_INVALID_PACKET_DROPPED;
		return FORWARD_LINK;
	}
	if (bpf_skb_load_bytes(skb, packet->l4, &nd, sizeof(nd)))
		return DROP_INVALID_PACKET_DROPPED;
	if (type == ICMPV6_NEIGHBOUR_SOLICITATION)
		return link_solicitation_leaves(skb, endpoint, packet, &nd);
	return link_advertisement_leaves(skb, endpoint, packet, &nd);
}

static __always_inline enum reason link_control_leaves(struct __sk_buff *skb,
						       const struct endpoint *endpoint,
						       const struct packet *packet)
{
	if (packet->family == 0)
		return link_arp_leaves(skb, endpoint, packet);
	if (packet->protocol == PROTOCOL_ICMPV6) {
		if (!address_is_unspecified(&packet->source) &&
		    !link_is_own_ipv6(endpoint, &packet->source))
			return DROP_INVALID_SOURCE_IP;
		return link_icmpv6_leaves(skb, endpoint, packet);
	}
	if (!link_is_own_local(endpoint, &packet->source))
		return DROP_INVALID_SOURCE_IP;
	/* To all DHCPv6 servers and relays, as a client. */
	if (packet->source_port == net16(DHCPV6_CLIENT) &&
	    packet->destination_port == net16(DHCPV6_SERVER) &&
	    packet->destination.quads[0] == net32(0xff020000) && !packet->destination.quads[1] &&
	    packet->destination.quads[2] == 0 && packet->destination.quads[3] == net32(0x10002))
		return FORWARD_LINK;
	return DROP_INVALID_SOURCE_IP;
}

/*
 * Before everything else that is asked about a frame of a pod, whatever its policies are.
 * FORWARD_NONE: it is IP of the pod's own, go on.
 */
static __always_inline enum reason link_leaves(struct __sk_buff *skb,
					       const struct endpoint *endpoint,
					       const struct packet *packet, enum reason reason)
{
	__u64 known = link_mac_word(endpoint->mac);

	if (!packet->family && reason != FORWARD_LINK)
		return reason;
	if (known && known != link_mac_word(packet->mac))
		return DROP_INVALID_SOURCE_MAC;
	if (reason == FORWARD_LINK)
		return link_control_leaves(skb, endpoint, packet);
	if (reason == DROP_INVALID_SOURCE_IP ||
	    !link_is_own(endpoint, packet->family, &packet->source))
		return DROP_INVALID_SOURCE_IP;
	if (packet->end && packet->end != skb->len && skb->len > ETHERNET_SHORTEST)
		return DROP_INVALID_PACKET_DROPPED;
	return FORWARD_NONE;
}

/* Another sender claims an address of the pod or the node. */
static __always_inline enum reason link_claims(struct scratch *scratch,
					       const struct endpoint *endpoint,
					       struct address *claimed, __u8 family)
{
	if (link_is_own(endpoint, family, claimed) ||
	    (family == 6 && link_is_own_local(endpoint, claimed)))
		return DROP_INVALID_SOURCE_IP;
	if (!scratch->packet.local && link_is_nodes(scratch, claimed))
		return DROP_INVALID_SOURCE_IP;
	return FORWARD_LINK;
}

static __always_inline enum reason link_control_enters(struct __sk_buff *skb,
						       struct scratch *scratch,
						       const struct endpoint *endpoint)
{
	struct packet *packet = &scratch->packet;
	__u8 type = packet->icmp_type;
	struct link_nd nd;
	int probe;

	if (packet->family == 0)
		return link_claims(scratch, endpoint, &packet->source, 4);
	if (packet->protocol != PROTOCOL_ICMPV6) {
		if (packet->source_port == net16(DHCPV6_SERVER) &&
		    packet->destination_port == net16(DHCPV6_CLIENT) &&
		    address_is_link_local(&packet->destination))
			return FORWARD_LINK;
		return DROP_INVALID_DESTINATION_IP;
	}
	if (type == ICMPV6_MLD_REPORT || type == ICMPV6_MLD_DONE || type == ICMPV6_MLD2_REPORT)
		return DROP_INVALID_DESTINATION_IP; /* for routers, and full of anything */
	if (type != ICMPV6_NEIGHBOUR_SOLICITATION && type != ICMPV6_NEIGHBOUR_ADVERTISEMENT)
		return FORWARD_LINK;
	if (bpf_skb_load_bytes(skb, packet->l4, &nd, sizeof(nd)))
		return DROP_INVALID_PACKET_DROPPED;
	if (link_claims(scratch, endpoint, &packet->source, 6) != FORWARD_LINK)
		return DROP_INVALID_SOURCE_IP;
	probe = address_is_unspecified(&packet->source);
	if (type == ICMPV6_NEIGHBOUR_SOLICITATION && !probe)
		return FORWARD_LINK;
	scratch->question.remote = nd.target;
	return link_claims(scratch, endpoint, &scratch->question.remote, 6);
}

static __always_inline int link_is_for_pod(const struct endpoint *endpoint,
					   const struct packet *packet)
{
	const struct address *to = &packet->destination;

	if (link_is_own(endpoint, packet->family, to))
		return 1;
	if (packet->family == 4)
		return (to->bytes[12] & 0xf0) == 0xe0 || to->quads[3] == net32(0xffffffff);
	if (to->bytes[0] == 0xff || link_is_own_local(endpoint, to))
		return 1;
	return address_is_link_local(to) && packet->local; /* the node knows it */
}

/* As link_leaves(), of what is about to enter a pod. */
static __always_inline enum reason link_enters(struct __sk_buff *skb, struct scratch *scratch,
					       const struct endpoint *endpoint, enum reason reason)
{
	if (reason == DROP_INVALID_SOURCE_IP)
		return reason;
	if (scratch->packet.family && !link_is_for_pod(endpoint, &scratch->packet))
		return DROP_INVALID_DESTINATION_IP;
	if (reason == FORWARD_LINK)
		return link_control_enters(skb, scratch, endpoint);
	return FORWARD_NONE;
}

#endif
