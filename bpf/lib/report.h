/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What is reported about a packet: exact per-CPU counters always, an event when it is news (a
 * drop, an audit, a new connection, one judged again). A full ring buffer loses events, never
 * counts. Events are limited by source, which no pod can forge: one sender's cannot hide those of
 * others.
 */
#ifndef RINGFENCE_REPORT_H
#define RINGFENCE_REPORT_H

static __always_inline void report_lost(__u32 counter)
{
	__u64 *lost = lost_map.lookup(&counter);

	if (lost)
		*lost += 1;
}

static __always_inline void report_count(struct __sk_buff *skb, const struct outcome *outcome,
					 enum direction direction, __u8 verdict, __u8 reason)
{
	struct stats_key key = {
		.endpoint = outcome->endpoint,
		.rule = outcome->rule ? outcome->rule : outcome->group,
		.direction = direction,
		.reason = reason,
		.by_group = !outcome->rule,
		.verdict = verdict,
	};
	struct stats_value zero = {};
	struct stats_value *value = stats_map.lookup(&key);

	if (!value) {
		stats_map.insert(&key, &zero);
		value = stats_map.lookup(&key);
	}
	if (!value) {
		report_lost(LOST_STATS);
		return;
	}
	value->packets += 1;
	value->bytes += skb->len;
}

/*
 * Whether this sender has not had its share in this window, of drops or of what passed.
 */
static __always_inline int report_is_due(const struct packet *packet, __u32 endpoint, __u8 verdict)
{
	__u64 sum = proof_over(PROOF_SEED, &packet->source, sizeof(packet->source));
	__u32 zero = 0, slot = proof_add(sum, packet->family ? 0 : endpoint) >> 53 << 1;
	const __u64 *quota = quota_map.lookup(&zero);
	struct share_value *share;

	if (!quota || !*quota)
		return 1;
	if (verdict == VERDICT_DROPPED)
		slot += 1;
	share = share_map.lookup(&slot);
	if (!share)
		return 1;
	return share_take(share, *quota);
}

static __always_inline void report_event(struct __sk_buff *skb, __u32 ifindex,
					 const struct packet *packet, const struct outcome *outcome,
					 enum direction direction, __u8 verdict, __u8 reason)
{
	struct flow_event *event;

	if (!report_is_due(packet, outcome->endpoint, verdict)) {
		report_lost(LOST_HELD_BACK);
		return;
	}
	event = events.ringbuf_reserve(sizeof(struct flow_event));
	if (!event) {
		report_lost(LOST_EVENTS);
		return;
	}
	event->time = bpf_ktime_get_ns();
	event->endpoint = outcome->endpoint;
	event->ifindex = ifindex;
	event->rule = outcome->rule;
	event->group = outcome->group;
	event->identity = outcome->identity;
	event->tenant = outcome->tenant;
	event->length = skb->len;
	event->source = packet->source;
	event->destination = packet->destination;
	event->source_port = packet->source_port;
	event->destination_port = packet->destination_port;
	event->ethertype = packet->ethertype;
	event->family = packet->family;
	event->protocol = packet->protocol;
	event->direction = direction;
	event->verdict = verdict;
	event->reason = reason;
	event->tcp_flags = packet->tcp_flags;
	event->icmp_type = packet->icmp_type;
	event->icmp_code = packet->icmp_code;
	event->flags = outcome->flags;
	event->reserved = 0;
	event->pad = 0;
	events.ringbuf_submit(event, 0);
}

static __always_inline void report(struct __sk_buff *skb, __u32 ifindex,
				   const struct packet *packet, const struct outcome *outcome,
				   enum direction direction)
{
	__u8 verdict = VERDICT_FORWARDED;
	__u8 reason = outcome->reason;

	if (reason >= DROP_FIRST) {
		verdict = VERDICT_DROPPED;
	} else if (outcome->audit) {
		verdict = VERDICT_AUDIT;
		reason = outcome->audit;
	} else if (reason == FORWARD_REDIRECTED) {
		verdict = VERDICT_REDIRECTED;
	}
	report_count(skb, outcome, direction, verdict, reason);
	if (verdict != VERDICT_FORWARDED || outcome->news)
		report_event(skb, ifindex, packet, outcome, direction, verdict, reason);
}

#endif
