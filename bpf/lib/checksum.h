/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * A frame may leave a pod with a checksum that is completed later, and says where: any two bytes
 * of it. They are written at an interface behind our hooks, so a place that was judged must
 * not be among them. Neither whether one is pending nor where can be read, but the kernel shows it:
 *
 * - bpf_csum_level() counts up from a checksum that is unchecked or was found right, which is put
 *   back, and bpf_csum_update() takes one over the whole packet; both leave a pending one;
 * - bpf_skb_change_tail() refuses to cut a packet before the end of a pending checksum.
 */
#ifndef RINGFENCE_CHECKSUM_H
#define RINGFENCE_CHECKSUM_H

#define EINVAL 22

static __always_inline int checksum_is_pending(struct __sk_buff *skb)
{
	bpf_csum_level(skb, BPF_CSUM_LEVEL_INC);
	if (bpf_csum_level(skb, BPF_CSUM_LEVEL_QUERY) >= 0) {
		bpf_csum_level(skb, BPF_CSUM_LEVEL_DEC);
		return 0;
	}
	return bpf_csum_update(skb, 0) < 0;
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

/* No judged byte may be written after the verdict. `reason` is the parser's result. */
static __always_inline int checksum_is_harmless(struct __sk_buff *skb, const struct packet *packet,
						enum reason reason)
{
	int place = checksum_place(packet, reason);

	if (!skb->gso_size && !checksum_is_pending(skb))
		return 1;
	/* Where it does not refuse, the packet is cut, and dropped. */
	return place >= 0 && bpf_skb_change_tail(skb, packet->l4 + place + 1, 0) == -EINVAL;
}

#endif
