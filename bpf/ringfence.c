/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Two programs for every pod of a node, attached to the host side of its veth: to_pod judges what
 * enters the pod (tc egress), from_pod what leaves it (tc ingress). One image serves all pods; the
 * endpoint is found by ifindex. Both are one function with the direction as an argument.
 *
 * The order of decide() is the specification; each step has its header in lib/.
 */
#include "lib/types.h"
#include "lib/drop_reasons.h"
#include "lib/layout.h"
#include "lib/parse.h"
#include "lib/verdict.h"
#include "lib/conntrack.h"
#include "lib/maps.h"
#include "lib/proof.h"
#include "lib/lookup.h"
#include "lib/policy.h"
#include "lib/track.h"
#include "lib/link.h"
#include "lib/encapsulation.h"
#include "lib/checksum.h"
#include "lib/report.h"
#include "lib/proxy.h"
#include "lib/detour.h"

/*
 * Masqueraded traffic of any tenant carries the node's address; only a local socket proves the
 * node. What came in by an interface has none, even if the packet says so: a bridge passes frames
 * of a pod on with the pod's own socket.
 */
static __always_inline int is_from_host(struct __sk_buff *skb, struct scratch *scratch)
{
	if (!scratch->packet.family || !skb->sk || !scratch->packet.local)
		return 0;
	policy_find_peer(scratch, &scratch->packet.source);
	return scratch->peer.identity == IDENTITY_HOST;
}

/* The type of an ICMP message in the place of a port; an echo reply answers a request. */
static __always_inline __be16 ask_type(const struct packet *packet, int by_remote)
{
	__u8 type = packet->icmp_type;

	if (packet->kind == PACKET_ECHO_REPLY && !by_remote)
		type = packet->family == 4 ? ICMP_ECHO_REQUEST : ICMPV6_ECHO_REQUEST;
	return net16(ICMP_PORT | type);
}

static __always_inline void ask(struct policy_question *question, const struct packet *packet,
				enum direction direction, const struct course *course)
{
	int by_remote = (direction == DIR_INGRESS) == (course->asked == DIR_INGRESS);

	question->remote = direction == DIR_INGRESS ? packet->source : packet->destination;
	question->port = 0;
	if (packet->kind == PACKET_PORTS)
		question->port = by_remote ? packet->destination_port : packet->source_port;
	else if (packet->kind != PACKET_OTHER)
		question->port = ask_type(packet, by_remote);
	question->protocol = packet->protocol;
	question->direction = course->asked;
	question->kind = packet->kind;
	question->kept = course->kept;
	question->kept_rule = course->kept_rule;
	question->kept_group = course->kept_group;
}

/*
 * A TCP segment without a known beginning may be the answer to what the pod opened before we knew
 * it: it is asked about the other way round too, in the grace period of endpoints older than us. A
 * datagram does not show whether it is an answer: it counts as none.
 */
static __always_inline int may_be_answer(const struct endpoint *endpoint,
					 const struct packet *packet)
{
	if (packet->protocol != PROTOCOL_TCP || ct_starts(packet) || !ct_is_tracked(packet))
		return 0;
	return (endpoint->flags & EP_GRACE) && ct_now() < endpoint->grace_until;
}

static __always_inline int is_worth_tracking(const struct packet *packet, enum reason reason)
{
	int tcp = packet->protocol == PROTOCOL_TCP;

	if (!ct_is_tracked(packet) || packet->kind == PACKET_ECHO_REPLY)
		return 0;
	if (tcp && (packet->tcp_flags & TCP_RST))
		return 0;
	/* The pod's answers to its node belong to no known connection: they open nothing. */
	return !(tcp && reason == FORWARD_HOST && !ct_is_syn(packet));
}

/* Stores the result for a connection in a new entry, which replaces any earlier one. */
static __always_inline int hold_connection(struct scratch *scratch, const struct endpoint *endpoint,
					   __u8 flags)
{
	const struct policy_answer *answer = &scratch->answer;
	const struct course *course = &scratch->course;
	struct ct_value value = {
		.last = ct_now(),
		.group = answer->group,
		.rule = answer->rule,
		.opener = course->opener,
		.flags = flags,
		.reason = answer->reason,
		.generation = endpoint->generation,
		.tenure = course->tenure,
	};

	if (scratch->unproven)
		return -1;
	value.proof = proof_of_connection(&scratch->key, &value);
	value.seal = value.proof;
	return ct_map.update(&scratch->key, &value);
}

static __always_inline enum reason open_connection(struct scratch *scratch,
						   const struct endpoint *endpoint,
						   enum direction direction)
{
	struct course *course = &scratch->course;
	const struct packet *packet = &scratch->packet;
	__u8 flags = 0;

	course->state = direction == course->opener ? CT_OPENER : CT_REPLY;
	course->kind = scratch->answer.reason;

	if (packet->protocol == PROTOCOL_TCP && !ct_is_syn(packet))
		flags = CT_ADOPTED;
	if (hold_connection(scratch, endpoint, ct_flags_after(flags, packet, course->state)))
		return DROP_CT_MAP_INSERTION_FAILED;
	return FORWARD_NONE;
}

static __always_inline int audit_is_the_walls(enum reason reason)
{
	return reason == DROP_TENANT_WALL || reason == DROP_UNKNOWN_SENDER;
}

static __always_inline void note_answer(struct outcome *outcome, const struct policy_answer *answer,
					const struct endpoint *endpoint)
{
	outcome->rule = answer->rule;
	outcome->group = answer->group;
	outcome->identity = answer->identity;
	outcome->tenant = answer->tenant;
	outcome->audit = answer->audit;
	if (answer->audit && !verdict_is_drop(answer->reason)) {
		if (answer->audit != DROP_POLICY_DENY)
			outcome->rule = 0;
		outcome->group =
			audit_is_the_walls(answer->audit) ? endpoint->wall : endpoint->group;
	}
	if (answer->masked)
		outcome->flags |= EVENT_MASKED;
}

/*
 * Where the policies of an endpoint say so, what they let in goes on when they change. The tenant
 * wall is still asked again, a connection that was cut stays cut, and a packet that begins a
 * connection on the same ports is judged.
 */
static __always_inline void keep(struct course *course, const struct endpoint *endpoint,
				 const struct ct_value *entry)
{
	__u32 keeps = course->opener == DIR_INGRESS ? EP_KEEP_INGRESS : EP_KEEP_EGRESS;

	if (!(endpoint->flags & keeps) || (entry->flags & CT_REFUSED))
		return;
	course->kept = entry->reason;
	course->kept_rule = entry->rule;
	course->kept_group = entry->group;
}

static __always_inline void put(struct scratch *scratch, const struct endpoint *endpoint,
				enum direction direction)
{
	forget();
	ask(&scratch->question, &scratch->packet, direction, &scratch->course);
	policy_judge(scratch, endpoint);
	forget();
}

/* What the pod sends and the wall at the other end keeps out gets no answers. */
static __always_inline int answers_nothing(const struct scratch *scratch, enum direction direction)
{
	return direction == DIR_INGRESS && scratch->answer.unheld;
}

/*
 * Put the question of the opener, and where that is refused but may be turned round, the other
 * one; what comes back where nothing may come back is asked about as itself. Leaves who opened in
 * the course, with the answer that counts in scratch->answer. (No loop: kernels before 6.7 refuse a
 * way back that is no jump, and clang makes one of it.)
 */
static __always_inline void judge(struct scratch *scratch, const struct endpoint *endpoint,
				  enum direction direction)
{
	struct course *course = &scratch->course;

	course->asked = course->opener;
	put(scratch, endpoint, direction);
	if (verdict_is_drop(scratch->answer.reason)) {
		if (course->state != CT_NEW || !may_be_answer(endpoint, &scratch->packet))
			return;
		scratch->refused = scratch->answer;
		course->asked = course->opener == DIR_INGRESS ? DIR_EGRESS : DIR_INGRESS;
	} else {
		if (!answers_nothing(scratch, direction))
			return;
		course->opener = course->asked = DIR_INGRESS;
		course->state = CT_NEW;
		course->kept = FORWARD_NONE;
		scratch->outcome.flags &= ~EVENT_REPLY;
	}
	put(scratch, endpoint, direction);
	if (course->asked == course->opener)
		return;
	if (verdict_is_drop(scratch->answer.reason) || answers_nothing(scratch, direction))
		scratch->answer = scratch->refused;
	else
		course->opener = course->asked;
}

/*
 * A packet that the wall at the other end keeps out goes there to be dropped, unless something on
 * this node may carry it past to_pod. Where this node holds that end, to_pod is run for it all the
 * same, and says who refused.
 */
static __always_inline int stops_here(const struct scratch *scratch,
				      const struct endpoint *endpoint, enum direction direction)
{
	return direction == DIR_EGRESS && (endpoint->flags & EP_SHORTCUT) && !scratch->beyond &&
	       scratch->answer.unheld && !verdict_is_drop(scratch->answer.reason);
}

/* The first packet of a connection, or one that belongs to none that is known. */
static __always_inline enum reason begin(struct scratch *scratch, const struct endpoint *endpoint,
					 enum direction direction)
{
	const struct policy_answer *answer = &scratch->answer;
	const struct packet *packet = &scratch->packet;

	if (verdict_is_drop(answer->reason) || !is_worth_tracking(packet, answer->reason))
		return answer->reason;
	scratch->outcome.news = 1;
	if (answer->unheld) {
		if (!answer->identity && direction == DIR_EGRESS && !track_may_look(endpoint))
			return DROP_RATE_LIMITED;
		return answer->reason;
	}
	if (packet->protocol == PROTOCOL_TCP && !ct_is_syn(packet))
		scratch->outcome.flags |= EVENT_MID_STREAM;
	return open_connection(scratch, endpoint, direction);
}

/* Something changed since this connection was let in, and the opener's question was put again. */
static __always_inline enum reason resume(struct scratch *scratch, const struct endpoint *endpoint)
{
	const struct policy_answer *answer = &scratch->answer;
	struct ct_value *living = lookup_connection(scratch, &scratch->key);
	__u8 flags = scratch->entry.flags & ~(CT_REFUSED | CT_KEPT);

	scratch->outcome.flags |= EVENT_REJUDGED;
	if (!living) /* evicted meanwhile: the next packet starts over */
		return answer->reason;
	if (verdict_is_drop(answer->reason)) {
		/* The entry stays, with its old generation: both directions stop. */
		if (!ct_starts(&scratch->packet) && !scratch->unproven)
			lookup_mark(living, &scratch->entry, scratch->entry.flags | CT_REFUSED);
		return answer->reason;
	}
	if (answer->unheld)
		return answer->reason;
	scratch->course.kind = answer->reason;
	if (proxy_moved(scratch)) {
		/* The entry stays as it was, for all packets that follow. */
		scratch->leg = LEG_DOWN | LEG_ANEW;
		return scratch->course.state == CT_OPENER ? FORWARD_NONE : DROP_POLICY_DENIED;
	}
	scratch->outcome.news = 1;
	if (scratch->course.kept)
		flags |= CT_KEPT;
	if (hold_connection(scratch, endpoint, flags))
		return DROP_CT_MAP_INSERTION_FAILED;
	return FORWARD_NONE;
}

/* A connection that both ends have closed only ages, even if packets still arrive. */
static __always_inline void touch(struct ct_value *living, struct ct_value *entry,
				  const struct packet *packet, enum ct_state state, __u64 now)
{
	__u8 flags = ct_flags_after(entry->flags, packet, state);

	if (ct_silence(entry, now) > (__s64)CT_TOUCH && !ct_closed(entry))
		lookup_refresh(living, entry, now);
	if (flags == entry->flags)
		return;
	lookup_mark(living, entry, flags);
	entry->flags = flags;
}

static __always_inline enum reason judge_connection(struct scratch *scratch,
						    const struct endpoint *endpoint,
						    enum direction direction)
{
	const struct packet *packet = &scratch->packet;
	struct outcome *outcome = &scratch->outcome;
	struct course *course = &scratch->course;
	struct ct_value *entry = &scratch->entry, *living = 0;
	__u64 now = 0;

	course->opener = direction;
	course->state = CT_NEW;
	course->kept = FORWARD_NONE;
	ct_key_of(&scratch->key, endpoint->endpoint, packet, direction);
	course->tenure = lookup_tenure(&scratch->key.remote);
	if (ct_is_tracked(packet))
		living = lookup_connection(scratch, &scratch->key);
	if (living) {
		now = ct_now();
		course->state = ct_state_of(entry, packet, direction, now);
	}
	if (living && course->state != CT_NEW) {
		if (!proxy_fits(entry->reason, course->state == CT_OPENER, scratch->sent))
			return DROP_FORGED;
		touch(living, entry, packet, course->state, now);
		course->opener = entry->opener ? DIR_EGRESS : DIR_INGRESS;
		if (course->state == CT_REPLY)
			outcome->flags |= EVENT_REPLY;
		outcome->rule = entry->rule;
		outcome->group = entry->group;
		if (ct_is_current(entry, endpoint->generation, course->tenure) &&
		    !((entry->flags & CT_KEPT) && ct_starts(packet))) {
			course->kind = entry->reason;
			return FORWARD_NONE;
		}
		if (!ct_starts(packet))
			keep(course, endpoint, entry);
	}
	/* What the proxy answers, it answers on a connection. */
	if (course->state == CT_NEW && scratch->sent == LEG_DOWN)
		return DROP_FORGED;
	judge(scratch, endpoint, direction);
	proxy_settle(scratch);
	note_answer(outcome, &scratch->answer, endpoint);
	if (stops_here(scratch, endpoint, direction)) {
		outcome->rule = 0;
		outcome->group = 0;
		return DROP_TENANT_WALL;
	}
	if (course->state == CT_NEW)
		return begin(scratch, endpoint, direction);
	return resume(scratch, endpoint);
}

/* What cannot be parsed cannot be judged: refused where anything might have refused it. */
static __always_inline enum reason judge_unreadable(struct outcome *outcome,
						    const struct endpoint *endpoint,
						    enum direction direction, enum reason reason)
{
	int cuts = policy_cuts(endpoint, direction);
	int asked = policy_isolated(endpoint, direction);

	if (reason == DROP_UNSUPPORTED_L2_PROTOCOL || reason == DROP_UNSUPPORTED_L3_PROTOCOL) {
		cuts = policy_cuts(endpoint, DIR_INGRESS) || policy_cuts(endpoint, DIR_EGRESS);
		asked = policy_isolated(endpoint, DIR_INGRESS) ||
			policy_isolated(endpoint, DIR_EGRESS);
	}
	if (cuts)
		return reason;
	if (asked)
		outcome->audit = reason;
	return FORWARD_NOT_ISOLATED;
}

/*
 * Whether a frame may leave or enter this pod regardless of policies. FORWARD_NONE: ask them.
 */
static __always_inline enum reason judge_shape(struct __sk_buff *skb, struct scratch *scratch,
					       const struct endpoint *endpoint,
					       enum direction direction, enum reason reason)
{
	enum reason link;

	if (direction == DIR_INGRESS)
		return link_enters(skb, scratch, endpoint, reason);
	link = link_leaves(skb, endpoint, &scratch->packet, reason);
	if (!verdict_is_drop(link) && !checksum_is_harmless(skb, &scratch->packet, reason))
		return DROP_INVALID_CHECKSUM;
	return link;
}

/* Where else to_pod has to be run for what leaves this pod. */
static __always_inline void look_beyond(struct scratch *scratch, const struct endpoint *endpoint)
{
	if (!(endpoint->flags & EP_SHORTCUT) || !scratch->packet.family)
		return;
	if (lookup_address(scratch, &scratch->packet.destination))
		scratch->beyond = scratch->address.interface;
	forget();
}

static __always_inline enum reason decide(struct __sk_buff *skb, struct scratch *scratch,
					  const struct endpoint *endpoint, enum direction direction)
{
	struct packet *packet = &scratch->packet;
	struct outcome *outcome = &scratch->outcome;
	int ingress = direction == DIR_INGRESS;
	enum reason shape, reason;

	outcome->reason = parse_frame(skb, packet);
	forget();
	reason = outcome->reason;
	if (!endpoint)
		return DROP_EP_NOT_READY;
	outcome->endpoint = endpoint->endpoint;
	if (!(endpoint->flags & EP_READY))
		return DROP_EP_NOT_READY;
	outcome->reason = judge_shape(skb, scratch, endpoint, direction, reason);
	forget();
	if (!ingress && !verdict_is_drop(outcome->reason))
		look_beyond(scratch, endpoint);
	if (outcome->reason)
		return outcome->reason;
	if (ingress && is_from_host(skb, scratch)) {
		outcome->identity = IDENTITY_HOST;
		outcome->news = ct_starts(packet);
		return FORWARD_HOST;
	}
	if (packet->family && address_equal(&packet->source, &packet->destination) &&
	    link_is_own(endpoint, packet->family, &packet->source))
		return FORWARD_SELF;
	if (!verdict_is_drop(reason) && packet->fragment)
		reason = track_fragment(scratch, endpoint->endpoint, direction);
	if (!ingress) {
		shape = encapsulation_leaves(scratch, endpoint, reason);
		if (shape)
			return shape;
	}
	if (verdict_is_drop(reason))
		return judge_unreadable(outcome, endpoint, direction, reason);
	if (packet->kind == PACKET_ICMP_ERROR) {
		outcome->reason = track_icmp_error(skb, endpoint, scratch, direction);
		forget();
		if (outcome->reason == FORWARD_RELATED) {
			proxy_relate(scratch, direction);
			return FORWARD_RELATED;
		}
	}
	forget();
	reason = judge_connection(scratch, endpoint, direction);
	forget();
	return reason ? reason : proxy_course(scratch);
}

/*
 * A value that did not prove which key it belongs to: results that used it do not count, and the
 * packet is judged from the beginning. Returns only where that is impossible.
 */
static __always_inline void judge_again(struct __sk_buff *skb, struct scratch *scratch,
					enum direction direction)
{
	scratch->outcome.reason = DROP_NO_CONFIGURATION_AVAILABLE_TO_DETERMINE_POLICY_DECISION;
	if (scratch->attempts + 1 >= LOOKUP_ATTEMPTS)
		return;
	scratch->attempts += 1;
	again_map.call(skb, direction);
}

static __always_inline int handle(struct __sk_buff *skb, enum direction direction)
{
	__u32 ifindex = skb->ifindex, zero = 0;
	struct scratch *scratch = scratch_map.lookup(&zero);
	const struct endpoint *endpoint;

	if (!scratch) /* cannot happen, but the verifier needs the check */
		return VERDICT_SHOT;
	if (direction == DIR_EGRESS)
		scratch->beyond = 0;
	else if (scratch->beyond)
		ifindex = scratch->beyond;
	/* The rest is set before it is read. */
	__builtin_memset(&scratch->packet, 0, sizeof(scratch->packet));
	__builtin_memset(&scratch->outcome, 0, sizeof(scratch->outcome));
	scratch->unproven = 0;
	scratch->leg = LEG_NONE;
	if (!scratch->attempts)
		scratch->sent = proxy_sent(skb);
	endpoint = lookup_endpoint(scratch, ifindex);
	scratch->outcome.reason = decide(skb, scratch, endpoint, direction);
	forget();
	proxy_choose(scratch);
	if (scratch->unproven)
		judge_again(skb, scratch, direction);
	scratch->attempts = 0;
	report(skb, ifindex, &scratch->packet, &scratch->outcome, direction);
	if (verdict_is_drop(scratch->outcome.reason)) {
		scratch->beyond = 0;
		return VERDICT_SHOT;
	}
	if (scratch->leg) {
		scratch->beyond = 0;
		return proxy_take(skb, scratch, direction);
	}
	if (direction == DIR_EGRESS && scratch->beyond) {
		again_map.call(skb, DIR_INGRESS);
		scratch->beyond = 0; /* cannot happen: the program is always there */
		return VERDICT_SHOT;
	}
	scratch->beyond = 0;
	return VERDICT_CONTINUE;
}

int to_pod(struct __sk_buff *skb)
{
	return handle(skb, DIR_INGRESS);
}

int from_pod(struct __sk_buff *skb)
{
	return handle(skb, DIR_EGRESS);
}
