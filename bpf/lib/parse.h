/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * A frame in, a struct packet out. One parser for both directions and for packets quoted in ICMP
 * errors. Bytes are copied by parse_copy(), which bounds every read and does not care where a
 * super-packet keeps its data.
 *
 * A parse function answers FORWARD_NONE for "go on and judge", FORWARD_LINK for housekeeping of the
 * link, or the reason why the packet cannot be judged.
 */
#ifndef RINGFENCE_PARSE_H
#define RINGFENCE_PARSE_H

#define ETHERTYPE_IPV4 0x0800
#define ETHERTYPE_ARP 0x0806
#define ETHERTYPE_VLAN 0x8100
#define ETHERTYPE_IPV6 0x86dd
#define ETHERTYPE_QINQ 0x88a8
#define ETHERTYPE_LOWEST 0x0600 /* below it the field is an 802.3 length */

#define PROTOCOL_ANY 0
#define PROTOCOL_ICMP 1
#define PROTOCOL_TCP 6
#define PROTOCOL_UDP 17
#define PROTOCOL_ICMPV6 58
#define PROTOCOL_SCTP 132

#define NEXT_HOP_BY_HOP 0
#define NEXT_ROUTING 43
#define NEXT_FRAGMENT 44
#define NEXT_DESTINATION 60
#define PARSE_MAX_EXTENSIONS 8

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

#define ICMP_ECHO_REQUEST 8
#define ICMPV6_ECHO_REQUEST 128
#define ICMPV6_MLD_REPORT 131
#define ICMPV6_MLD_DONE 132
#define ICMPV6_ROUTER_SOLICITATION 133
#define ICMPV6_NEIGHBOUR_SOLICITATION 135
#define ICMPV6_NEIGHBOUR_ADVERTISEMENT 136
#define ICMPV6_MLD2_REPORT 143

enum packet_kind {
	PACKET_OTHER = 0, /* a protocol without ports that we know */
	PACKET_PORTS, /* TCP, UDP, SCTP */
	PACKET_ECHO_REQUEST,
	PACKET_ECHO_REPLY,
	PACKET_ICMP,
	PACKET_ICMP_ERROR,
};

enum packet_fragment {
	FRAGMENT_NONE = 0,
	FRAGMENT_FIRST,
	FRAGMENT_LATER, /* has no L4 header; ports come from the first one */
};

enum parse_mode {
	PARSE_WHOLE,
	PARSE_QUOTED, /* inside an ICMP error: only the first 8 bytes of L4 are promised */
};

struct packet {
	struct address source;
	struct address destination;
	__be16 source_port; /* the identifier, for ICMP echo */
	__be16 destination_port;
	__be16 ethertype;
	__u8 family; /* 4, 6, or 0 while the addresses are not known */
	__u8 protocol;
	__u8 tcp_flags;
	__u8 icmp_type;
	__u8 icmp_code;
	__u8 kind; /* enum packet_kind */
	__u8 fragment; /* enum packet_fragment */
	__u8 fragment_protocol; /* as the IP or fragment header names it */
	__u8 hop_limit;
	__u8 pad;
	__u32 fragment_id;
	__u32 fragment_offset; /* in bytes */
	__u32 l4; /* offset of the L4 header in the frame */
	__u32 end; /* of the IP packet in the frame; 0 where its header does not say */
	__u8 mac[6]; /* Ethernet source */
	__u8 local; /* made on this node: it came in by no interface */
	__u8 padding;
};

struct parse_ethernet_header {
	__u8 destination[6];
	__u8 source[6];
	__be16 type;
};

struct parse_arp_header {
	__be16 hardware;
	__be16 protocol;
	__u8 hardware_length;
	__u8 protocol_length;
	__be16 operation;
	__u8 sender_mac[6];
	__u8 sender_ip[4];
	__u8 target_mac[6];
	__u8 target_ip[4];
};

struct parse_ipv4_header {
	__u8 version_ihl;
	__u8 tos;
	__be16 total_length;
	__be16 id;
	__be16 fragment;
	__u8 ttl;
	__u8 protocol;
	__be16 checksum;
	__be32 source;
	__be32 destination;
};

struct parse_ipv6_header {
	__u8 version_class;
	__u8 flow[3];
	__be16 payload_length;
	__u8 next;
	__u8 hop_limit;
	struct address source;
	struct address destination;
};

struct parse_extension_header {
	__u8 next;
	__u8 length; /* reserved in a fragment header */
	union {
		__be16 fragment;
		struct {
			__u8 routing_type;
			__u8 segments_left;
		};
	};
	__be32 fragment_id;
};

/* The first 14 bytes, all that is read. */
struct parse_tcp_header {
	__be16 source_port;
	__be16 destination_port;
	__be32 sequence;
	__be32 acknowledgement;
	__u8 data_offset;
	__u8 tcp_flags;
	__be16 window;
};
#define PARSE_TCP_BYTES 14
#define PARSE_NEAR 512

/* A pointer of the context; in assembly because clang would else go there by a detour. */
#define parse_pointer(skb, field)                                                           \
	({                                                                                  \
		const __u8 *pointer;                                                        \
		asm volatile("%0 = *(u32 *)(%1 + %2)"                                       \
			     : "=r"(pointer)                                                \
			     : "r"(skb), "i"(__builtin_offsetof(struct __sk_buff, field))); \
		pointer;                                                                    \
	})

/*
 * `size` bytes of the frame; 0 when they are there. Where the kernel has them at hand, as headers
 * nearly always are, they are read without a call.
 */
#define parse_copy(skb, offset, to, size)                                                   \
	({                                                                                  \
		const __u8 *near = parse_pointer(skb, data);                                \
		__u32 at = (offset);                                                        \
		int failed = 0;                                                             \
                                                                                            \
		if (at < PARSE_NEAR && near + at + (size) <= parse_pointer(skb, data_end))  \
			__builtin_memcpy((to), (const typeof(*(to)) *)(near + at), (size)); \
		else                                                                        \
			failed = bpf_skb_load_bytes((skb), at, (to), (size));               \
		failed;                                                                     \
	})

/* Quoted packets lie deep in a frame and are rare: one way to read them spares the verifier. */
#define parse_ip_header(skb, offset, to, mode)                                    \
	((mode) == PARSE_WHOLE ? parse_copy((skb), (offset), (to), sizeof(*(to))) \
			       : bpf_skb_load_bytes((skb), (offset), (to), sizeof(*(to))))

static __always_inline int parse_is_icmp_error(const struct packet *packet)
{
	__u8 type = packet->icmp_type;

	if (packet->family == 4)
		return type == 3 || type == 4 || type == 11 || type == 12;
	return type >= 1 && type <= 4;
}

static __always_inline __u8 parse_icmp_kind(const struct packet *packet)
{
	__u8 request = packet->family == 4 ? ICMP_ECHO_REQUEST : ICMPV6_ECHO_REQUEST;
	__u8 reply = packet->family == 4 ? 0 : 129;

	if (packet->icmp_type == request)
		return PACKET_ECHO_REQUEST;
	if (packet->icmp_type == reply)
		return PACKET_ECHO_REPLY;
	return parse_is_icmp_error(packet) ? PACKET_ICMP_ERROR : PACKET_ICMP;
}

static __always_inline enum reason parse_icmp(struct __sk_buff *skb, struct packet *packet,
					      __u32 available)
{
	struct {
		__u8 type;
		__u8 code;
		__be16 checksum;
		__be16 id;
		__be16 sequence;
	} header;

	if (available < sizeof(header) || parse_copy(skb, packet->l4, &header, sizeof(header)))
		return DROP_INVALID_PACKET_DROPPED;
	packet->icmp_type = header.type;
	packet->icmp_code = header.code;
	packet->kind = parse_icmp_kind(packet);
	if (packet->kind == PACKET_ECHO_REQUEST || packet->kind == PACKET_ECHO_REPLY) {
		packet->source_port = header.id;
		packet->destination_port = header.id;
	}
	return FORWARD_NONE;
}

static __always_inline enum reason parse_tcp(struct __sk_buff *skb, struct packet *packet,
					     __u32 available)
{
	struct parse_tcp_header header;
	__u32 length;

	if (available < 20 || parse_copy(skb, packet->l4, &header, PARSE_TCP_BYTES))
		return DROP_INVALID_PACKET_DROPPED;
	length = (header.data_offset >> 4) * 4U;
	if (length < 20 || length > available)
		return DROP_INVALID_PACKET_DROPPED;
	packet->kind = PACKET_PORTS;
	packet->source_port = header.source_port;
	packet->destination_port = header.destination_port;
	packet->tcp_flags = header.tcp_flags;
	return FORWARD_NONE;
}

static __always_inline enum reason parse_ports(struct __sk_buff *skb, struct packet *packet,
					       __u32 available, __u32 header_length)
{
	__be16 ports[2];

	if (available < header_length || parse_copy(skb, packet->l4, &ports, sizeof(ports)))
		return DROP_INVALID_PACKET_DROPPED;
	packet->kind = PACKET_PORTS;
	packet->source_port = ports[0];
	packet->destination_port = ports[1];
	return FORWARD_NONE;
}

static __always_inline enum reason parse_transport(struct __sk_buff *skb, struct packet *packet,
						   __u32 available, enum parse_mode mode)
{
	__u8 protocol = packet->protocol;

	if (packet->fragment == FRAGMENT_LATER)
		return FORWARD_NONE;
	if (protocol == PROTOCOL_TCP && mode == PARSE_WHOLE)
		return parse_tcp(skb, packet, available);
	if (protocol == PROTOCOL_TCP)
		return parse_ports(skb, packet, available, 8);
	if (protocol == PROTOCOL_UDP)
		return parse_ports(skb, packet, available, 8);
	if (protocol == PROTOCOL_SCTP)
		return parse_ports(skb, packet, available, mode == PARSE_WHOLE ? 12 : 8);
	if (protocol == (packet->family == 4 ? PROTOCOL_ICMP : PROTOCOL_ICMPV6))
		return parse_icmp(skb, packet, available);
	packet->kind = PACKET_OTHER;
	return FORWARD_NONE;
}

/*
 * How many bytes follow the IP header: what the header claims, never more than the frame has. A
 * claim of 0 is a super-packet of more than 64 KiB. A whole packet that claims more than there is
 * was cut; a quoted one always is.
 */
static __always_inline enum reason parse_available(__u32 claimed, __u32 present,
						   enum parse_mode mode, __u32 *available)
{
	*available = claimed && claimed < present ? claimed : present;
	if (mode == PARSE_WHOLE && claimed > present)
		return DROP_INVALID_PACKET_DROPPED;
	return FORWARD_NONE;
}

static __always_inline enum reason parse_ipv4(struct __sk_buff *skb, __u32 offset,
					      struct packet *packet, enum parse_mode mode)
{
	struct parse_ipv4_header header;
	__u32 length, total, available;
	__u16 fragment;

	if (parse_ip_header(skb, offset, &header, mode))
		return DROP_INVALID_PACKET_DROPPED;
	packet->family = 4;
	address_from_v4(&packet->source, header.source);
	address_from_v4(&packet->destination, header.destination);
	packet->protocol = packet->fragment_protocol = header.protocol;
	packet->hop_limit = header.ttl;
	length = (header.version_ihl & 15) * 4U;
	total = host16(header.total_length);
	if (header.version_ihl >> 4 != 4 || length < sizeof(header) || (total && total < length))
		return DROP_INVALID_PACKET_DROPPED;
	if (skb->len < offset + length ||
	    parse_available(total, skb->len - offset, mode, &available) || available < length)
		return DROP_INVALID_PACKET_DROPPED;
	packet->l4 = offset + length;
	packet->end = total ? offset + total : 0;
	fragment = host16(header.fragment);
	if (fragment & 0x3fff) {
		packet->fragment = fragment & 0x1fff ? FRAGMENT_LATER : FRAGMENT_FIRST;
		packet->fragment_offset = (fragment & 0x1fffU) * 8;
		packet->fragment_id = header.id;
	}
	return parse_transport(skb, packet, available - length, mode);
}

/*
 * What a host walks through to find a transport. To it AH without a security association, Mobility,
 * HIP and Shim6 are the packet's protocol, whatever follows them.
 */
static __always_inline int parse_is_extension(__u8 next)
{
	return next == NEXT_HOP_BY_HOP || next == NEXT_ROUTING || next == NEXT_FRAGMENT ||
	       next == NEXT_DESTINATION;
}

static __always_inline __u32 parse_extension_length(__u8 type, __u8 length)
{
	if (type == NEXT_FRAGMENT)
		return 8;
	return (length + 1U) * 8;
}

/* A packet with segments left goes on to somewhere else than its header says: not judged. */
static __always_inline enum reason parse_extensions(struct __sk_buff *skb, struct packet *packet,
						    __u8 next)
{
	struct parse_extension_header header;
	__u16 fragment;
	int i;

	packet->fragment_protocol = next;
	for (i = 0; i < PARSE_MAX_EXTENSIONS; i++) {
		packet->protocol = next;
		if (!parse_is_extension(next) || packet->fragment == FRAGMENT_LATER)
			return FORWARD_NONE;
		if (bpf_skb_load_bytes(skb, packet->l4, &header, sizeof(header)))
			return DROP_INVALID_IPV6_EXTENSION_HEADER;
		if (next == NEXT_ROUTING && header.segments_left)
			return DROP_INVALID_IPV6_EXTENSION_HEADER;
		if (next == NEXT_FRAGMENT) {
			if (packet->fragment)
				return DROP_INVALID_IPV6_EXTENSION_HEADER;
			fragment = host16(header.fragment);
			packet->fragment_protocol = header.next;
			packet->fragment_id = header.fragment_id;
			packet->fragment_offset = fragment & 0xfff8;
			if (fragment & 0xfff8)
				packet->fragment = FRAGMENT_LATER;
			else if (fragment & 1)
				packet->fragment = FRAGMENT_FIRST;
		}
		packet->l4 += parse_extension_length(next, header.length);
		next = header.next;
	}
	return DROP_INVALID_IPV6_EXTENSION_HEADER;
}

static __always_inline enum reason parse_ipv6(struct __sk_buff *skb, __u32 offset,
					      struct packet *packet, enum parse_mode mode)
{
	struct parse_ipv6_header header;
	enum reason reason;
	__u32 available, end;

	if (parse_ip_header(skb, offset, &header, mode))
		return DROP_INVALID_PACKET_DROPPED;
	packet->family = 6;
	packet->source = header.source;
	packet->destination = header.destination;
	packet->protocol = header.next;
	packet->hop_limit = header.hop_limit;
	packet->l4 = offset + sizeof(header);
	if (header.version_class >> 4 != 6)
		return DROP_INVALID_PACKET_DROPPED;
	if (address_is_v4(&header.source) || address_is_v4(&header.destination))
		return DROP_INVALID_SOURCE_IP;
	if (skb->len < packet->l4 ||
	    parse_available(host16(header.payload_length), skb->len - packet->l4, mode, &available))
		return DROP_INVALID_PACKET_DROPPED;
	end = packet->l4 + available;
	packet->end = header.payload_length ? end : 0;
	reason = parse_extensions(skb, packet, header.next);
	if (reason)
		return reason;
	if (packet->l4 > end)
		return DROP_INVALID_PACKET_DROPPED;
	return parse_transport(skb, packet, end - packet->l4, mode);
}

/*
 * Neighbour discovery is accepted only with a hop limit of 255, which no router leaves intact:
 * otherwise any tenant could send it through our routers. MLD and DHCPv6 stay on the link by
 * address.
 */
static __always_inline int parse_is_link_control(const struct packet *packet)
{
	int link = address_is_link_local(&packet->destination) ||
		   address_is_link_multicast(&packet->destination);
	__u8 type = packet->icmp_type;

	if (packet->family != 6 || packet->fragment != FRAGMENT_NONE)
		return 0;
	if (packet->protocol == PROTOCOL_ICMPV6) {
		if (type >= 133 && type <= 137)
			return packet->hop_limit == 255;
		return ((type >= 130 && type <= 132) || type == 143) && link &&
		       packet->hop_limit == 1;
	}
	return packet->protocol == PROTOCOL_UDP && link && address_is_link_local(&packet->source) &&
	       (packet->destination_port == net16(546) || packet->destination_port == net16(547));
}

static __always_inline enum reason parse_arp(struct __sk_buff *skb, struct packet *packet)
{
	struct parse_arp_header header;
	__be32 sender, target;

	if (bpf_skb_load_bytes(skb, sizeof(struct parse_ethernet_header), &header, sizeof(header)))
		return DROP_INVALID_PACKET_DROPPED;
	__builtin_memcpy(&sender, header.sender_ip, sizeof(sender));
	__builtin_memcpy(&target, header.target_ip, sizeof(target));
	address_from_v4(&packet->source, sender);
	address_from_v4(&packet->destination, target);
	return FORWARD_LINK;
}

static __always_inline enum reason parse_frame(struct __sk_buff *skb, struct packet *packet)
{
	struct parse_ethernet_header header;
	enum reason reason = FORWARD_NONE;
	__u16 type;

	if (parse_copy(skb, 0, &header, sizeof(header)))
		return DROP_INVALID_PACKET_DROPPED;
	packet->ethertype = header.type;
	packet->local = !skb->ingress_ifindex;
	__builtin_memcpy(packet->mac, header.source, sizeof(packet->mac));
	type = host16(header.type);
	if (skb->vlan_present || type == ETHERTYPE_VLAN || type == ETHERTYPE_QINQ ||
	    type < ETHERTYPE_LOWEST)
		return DROP_UNSUPPORTED_L2_PROTOCOL;
	if (type == ETHERTYPE_ARP)
		return parse_arp(skb, packet);
	if (type == ETHERTYPE_IPV4)
		return parse_ipv4(skb, sizeof(header), packet, PARSE_WHOLE);
	if (type != ETHERTYPE_IPV6)
		return DROP_UNSUPPORTED_L3_PROTOCOL;
	reason = parse_ipv6(skb, sizeof(header), packet, PARSE_WHOLE);
	if (reason == FORWARD_NONE && parse_is_link_control(packet))
		return FORWARD_LINK;
	return reason;
}

#endif
