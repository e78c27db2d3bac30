/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * A frame may leave a pod with a checksum that somebody else is to finish, and says where: any two
 * bytes of it. They are written at an interface behind our hooks, so a place that was judged must
 * not be among them. Where the place is cannot be read, but the kernel shows it in two ways:
 *
 * - bpf_l4_csum_replace() leaves the word alone where a checksum is pending, and changes it where
 *   none is (what is changed is put back);
 * - bpf_skb_change_tail() refuses to cut a packet before the end of a pending checksum.
 */
#ifndef RINGFENCE_CHECKSUM_H
#define RINGFENCE_CHECKSUM_H

#define EINVAL 22
#define CHECKSUM_PROBED 12 /* the EtherType, which is known */

/* 2 more in the ones' complement: never the same word. */
static __always_inline int checksum_is_pending(struct __sk_buff *skb, const struct packet *packet)
{
	__u16 before = packet->ethertype, after = 0;

	if (bpf_l4_csum_replace(skb, CHECKSUM_PROBED, net16(1), net16(3), 2) ||
	    bpf_skb_load_bytes(skb, CHECKSUM_PROBED, &after, sizeof(after)))
		return 1;
	if (before == after)
		return 1;
	bpf_skb_store_bytes(skb, CHECKSUM_PROBED, &before, sizeof(before), 0);
	return 0;
}

/* Where a kernel's own pending checksum is, seen from the transport header; below 0: nowhere. */
static __always_inline int checksum_place(const struct packet *packet, enum reason reason)
{
	if (verdict_is_drop(reason) || !packet->family || packet->fragment == FRAGMENT_LATER)
		return -1;
	if (packet->kind == PACKET_OTHER)
		return 0; /* what is inside may have one, and is not judged */
	if (packet->kind != PACKET_PORTS)
		return -1;
	if (packet->protocol == PROTOCOL_TCP)
		return 16;
	return packet->protocol == PROTOCOL_UDP ? 6 : 8;
}

/* Nothing that is judged is written after the verdict. `reason` is what the parser said. */
static __always_inline int checksum_is_harmless(struct __sk_buff *skb, const struct packet *packet,
						enum reason reason)
{
	int place = checksum_place(packet, reason);

	if (!skb->gso_size && !checksum_is_pending(skb, packet))
		return 1;
	/* Where it does not refuse, the packet is cut, and dropped. */
	return place >= 0 && bpf_skb_change_tail(skb, packet->l4 + place + 1, 0) == -EINVAL;
}

#endif
