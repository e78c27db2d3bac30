/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The values that pass between the steps: the question put to the policy, its answer, the outcome. */
#ifndef RINGFENCE_VERDICT_H
#define RINGFENCE_VERDICT_H

static __always_inline int verdict_is_drop(enum reason reason)
{
	return reason >= DROP_FIRST;
}

struct policy_question {
	struct address remote;
	__be16 port; /* 0: none, or not known */
	__u8 protocol;
	__u8 direction; /* enum direction */
	__u8 kind; /* enum packet_kind */
};

struct policy_answer {
	__u32 rule;
	__u32 group; /* that allowed or denied */
	__u32 identity; /* of the remote */
	__u32 tenant;
	__u8 reason; /* enum reason */
	__u8 audit; /* enum reason of a wall denial that is only reported */
	__u8 masked;
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
