/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * HTTP rules: TCP that they judge makes a detour through the node's proxy, which is in a network
 * namespace of its own behind a veth. The proxy ends the connection of the caller (leg DOWN) and
 * opens one to the called (leg UP), with the addresses of both as they were; the node's stack sees
 * the packets that it would see without a proxy. Both legs are connections here, by their reason:
 * REDIRECTED is DOWN, PROXIED is UP. What goes to the proxy says in its source MAC what it is, for
 * the namespace takes everything else off; what comes from there says so in its mark, which is a
 * secret of this node, and which no packet that leaves a pod keeps.
 */
#ifndef RINGFENCE_PROXY_H
#define RINGFENCE_PROXY_H

/* Whether a packet that the proxy sent, or did not, may belong to a connection. */
static __always_inline int proxy_fits(__u8 kind, int by_opener, __u8 sent)
{
	if (kind == FORWARD_REDIRECTED)
		return sent == (by_opener ? LEG_NONE : LEG_DOWN);
	if (kind == FORWARD_PROXIED)
		return sent == (by_opener ? LEG_UP : LEG_NONE);
	return sent == LEG_NONE;
}

static __always_inline int proxy_is_leg(__u8 kind)
{
	return kind == FORWARD_REDIRECTED || kind == FORWARD_PROXIED;
}

/* Which leg the proxy sent a packet on; its mark is taken off. */
static __always_inline __u8 proxy_sent(struct __sk_buff *skb)
{
	__u32 zero = 0, mark = skb->mark;
	const struct proxy_value *proxy;

	if (!mark)
		return LEG_NONE;
	proxy = proxy_map.lookup(&zero);
	if (!proxy || !proxy->secret || (mark & ~LEG_BITS) != proxy->secret)
		return LEG_NONE;
	skb->mark = 0;
	return mark & LEG_BITS;
}

/*
 * What the answer makes of the connection at hand. One that makes the detour goes on making it
 * while anything lets it through, by the rule set under which it began.
 */
static __always_inline void proxy_settle(struct scratch *scratch)
{
	struct policy_answer *answer = &scratch->answer;
	const struct ct_value *entry = &scratch->entry;
	__u8 kind = answer->reason;

	if (verdict_is_drop(kind))
		return;
	if (scratch->course.state != CT_NEW) {
		if (proxy_is_leg(entry->reason))
			kind = entry->reason;
	} else if (scratch->sent == LEG_UP) {
		kind = FORWARD_PROXIED;
	}
	if (kind == FORWARD_REDIRECTED && answer->reason != FORWARD_REDIRECTED)
		answer->rule = entry->rule;
	answer->reason = kind;
	/* The caller would be answered by a proxy that cannot go on. */
	if (proxy_is_leg(kind) && answer->unheld)
		answer->reason = DROP_TENANT_WALL;
}

/* What becomes of a packet of a connection of course->kind. */
static __always_inline enum reason proxy_course(struct scratch *scratch)
{
	__u8 kind = scratch->course.kind;
	int by_opener = scratch->course.state == CT_OPENER;

	if (!proxy_fits(kind, by_opener, scratch->sent))
		return DROP_FORGED;
	if (by_opener)
		return kind;
	if (kind == FORWARD_PROXIED)
		scratch->leg = LEG_UP;
	return FORWARD_REPLY;
}

/* An ICMP error about a leg goes to who has the connection. */
static __always_inline void proxy_relate(struct scratch *scratch, enum direction direction)
{
	const struct ct_value *entry = &scratch->entry;

	if (scratch->sent)
		return;
	if (entry->reason == FORWARD_REDIRECTED && entry->opener == direction)
		scratch->leg = LEG_DOWN;
	else if (entry->reason == FORWARD_PROXIED && entry->opener != direction)
		scratch->leg = LEG_UP;
}

/*
 * Whether the proxy cannot go on with a connection because other rules hold for it by now than
 * those under which it takes requests there.
 */
static __always_inline int proxy_moved(struct scratch *scratch)
{
	const struct policy_answer *answer = &scratch->answer;
	const struct ct_value *entry = &scratch->entry;
	__u32 listener;

	if (entry->reason != FORWARD_REDIRECTED || answer->reason != FORWARD_REDIRECTED ||
	    entry->rule == answer->rule)
		return 0;
	if (ct_starts(&scratch->packet) || (scratch->packet.tcp_flags & TCP_RST))
		return 0;
	listener = lookup_listener(scratch, entry->rule);
	return listener != lookup_listener(scratch, answer->rule);
}

/* Before it is told what happened: the listener that a packet goes to, or why it cannot. */
static __always_inline void proxy_choose(struct scratch *scratch)
{
	struct outcome *outcome = &scratch->outcome;
	__u32 zero = 0;
	const struct proxy_value *proxy;

	if (outcome->reason == FORWARD_REDIRECTED && !scratch->leg)
		scratch->leg = LEG_DOWN;
	if (verdict_is_drop(outcome->reason))
		scratch->leg = LEG_NONE;
	if (!scratch->leg)
		return;
	scratch->listener = 0;
	if (outcome->reason == FORWARD_REDIRECTED)
		scratch->listener = lookup_listener(scratch, outcome->rule);
	proxy = proxy_map.lookup(&zero);
	scratch->interface = proxy ? proxy->interface : 0;
	if (!scratch->interface || (outcome->reason == FORWARD_REDIRECTED && !scratch->listener) ||
	    (outcome->reason == FORWARD_REDIRECTED && scratch->packet.protocol != PROTOCOL_TCP))
		outcome->reason = DROP_PROXY_REDIRECTION_NOT_SUPPORTED_FOR_PROTOCOL;
}

/* Off to the proxy: what the packet is stands where its sender's MAC was. */
static __always_inline int proxy_take(struct __sk_buff *skb, struct scratch *scratch,
				      enum direction direction)
{
	__u8 leg = scratch->leg & LEG_BITS;
	__u8 opener = leg == LEG_DOWN ? direction : !direction;
	__u8 mac[6] = { TAG_MAC, leg | opener << TAG_EGRESS_SHIFT, 0, 0, 0, 0 };

	if (scratch->leg & LEG_ANEW)
		mac[1] |= TAG_ANEW;
	mac[4] = scratch->listener >> 8;
	mac[5] = scratch->listener;
	if (bpf_skb_store_bytes(skb, 6, mac, sizeof(mac), 0))
		return VERDICT_SHOT;
	return bpf_redirect(scratch->interface, 0);
}

#endif
