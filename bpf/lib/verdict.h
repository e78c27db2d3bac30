/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The values that pass between the steps: the question put to the policy, its answer, the outcome. */
#ifndef RINGFENCE_VERDICT_H
#define RINGFENCE_VERDICT_H

/* Also "next" for tcx: programs of others after ours still have their say. */
#define VERDICT_CONTINUE (-1)
#define VERDICT_SHOT 2

static __always_inline int verdict_is_drop(enum reason reason)
{
	return reason >= DROP_FIRST;
}

struct policy_question {
	struct address remote;
	__be16 port; /* 0: none, or not known; of ICMP its type, see ICMP_PORT */
	__u8 protocol;
	__u8 direction; /* enum direction */
	__u8 kind; /* enum packet_kind */
	__u8 kept; /* enum reason by which NetworkPolicy let it in before; 0: ask it again */
	__u32 kept_rule;
	__u32 kept_group;
};

#define POLICY_PEERS 5

/* The connections of the proxy, and how they are told apart on the way there and back: proxy.h. */
enum leg {
	LEG_NONE = 0,
	LEG_DOWN = 1, /* with the caller */
	LEG_UP = 2, /* with the called */
	LEG_ANEW = 4, /* DOWN, of a connection that the proxy must not go on with */
};

#define LEG_BITS 3U
#define TAG_MAC 0x02 /* first byte of the source MAC; the second has the leg and these */
#define TAG_EGRESS_SHIFT 4
#define TAG_EGRESS (1U << TAG_EGRESS_SHIFT) /* rules of the caller; else of the called */
#define TAG_ANEW 0x20U

/* How far the judgement of a connection has come. */
struct course {
	__u32 kept_rule;
	__u32 kept_group;
	__u8 kept; /* enum reason by which it may go on whatever NetworkPolicy says now; 0: ask */
	__u8 state; /* enum ct_state */
	__u8 opener; /* enum direction */
	__u8 asked; /* enum direction of the question */
	__u8 complains; /* an ICMP error comes from who may send it */
	__u8 kind; /* enum reason by which the opener's packets pass */
	__u8 pad[2];
	__u64 tenure; /* of the remote address, before it was asked about */
};

/* Who the question is about, as far as the maps know. */
struct policy_peer {
	__u32 identity;
	__u32 tenant;
	__u32 cidr;
	__u32 around; /* enum cidr_flag of the block that holds it */
	__u32 walled; /* a wall that drops is around it */
	__u32 service; /* of a Service that not all ports are known of */
	__u32 place; /* PEER_PLACE of who is no pod, if policies ask for it; else 0 */
	__u32 candidates[POLICY_PEERS];
	__u32 probed; /* how many of them */
	__u32 wall; /* enum reason why a wall keeps one from the other */
	__u32 rule;
};

struct policy_answer {
	__u32 rule;
	__u32 group; /* that allowed or denied */
	__u32 identity; /* of the remote */
	__u32 tenant;
	__u8 reason; /* enum reason */
	__u8 audit; /* enum reason of a wall denial that is only reported */
	__u8 masked;
	__u8 unheld; /* passes, but opens no connection */
};

/* Everything that decide() found out, beside the packet itself. */
struct outcome {
	__u32 endpoint;
	__u32 rule;
	__u32 group;
	__u32 identity;
	__u32 tenant;
	__u8 reason; /* enum reason */
	__u8 audit; /* enum reason, of a wall denial that is only reported */
	__u8 news; /* emit an event although it was forwarded */
	__u8 flags; /* enum event_flag */
};

#endif
