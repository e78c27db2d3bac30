/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What a connection entry means: age, direction, state. Pure, but for the one age that the agent
 * sets; the lookups are in track.h.
 *
 * Only packets that answer the opener are exempt from policy. A packet that starts a conversation
 * (a SYN without ACK, an ICMP echo request) is never an answer, even where the ports fit.
 */
#ifndef RINGFENCE_CONNTRACK_H
#define RINGFENCE_CONNTRACK_H

#define CT_SECOND 1000000000ULL
#define CT_TIMEOUT_TCP_SYN (20 * CT_SECOND)
/* Above Linux' keepalive, which begins at 7,200 s and gives up at 7,875; ct_idle_tcp(). */
#define CT_TIMEOUT_TCP (8000 * CT_SECOND)
#define CT_TIMEOUT_TCP_FIN (30 * CT_SECOND)
#define CT_TIMEOUT_TCP_RST (40 * CT_SECOND)
#define CT_TIMEOUT_UDP (60 * CT_SECOND)
#define CT_TIMEOUT_UDP_REPLIED (180 * CT_SECOND)
#define CT_TIMEOUT_ICMP (5 * CT_SECOND)
#define CT_TIMEOUT_OTHER (600 * CT_SECOND)
#define CT_TIMEOUT_FRAGMENT (30 * CT_SECOND)
#define CT_TIMEOUT_SHORTEST CT_TIMEOUT_ICMP
/* Writing `last` on every packet would bounce its cache line between CPUs for nothing. */
#define CT_TOUCH (CT_SECOND / 8)

enum ct_state {
	CT_NEW, /* no entry, or one that has ended */
	CT_OPENER,
	CT_REPLY,
};

/* A few milliseconds coarse, and a fifth of the price; the same clock as bpf_ktime_get_ns(). */
static __always_inline __u64 ct_now(void)
{
	return bpf_ktime_get_coarse_ns();
}

/* How long TCP may be idle, in nanoseconds; 0: as long as CT_TIMEOUT_TCP says. */
BPF_TABLE("array", __u32, __u64, idle_map, 1);

static __always_inline __u64 ct_idle_tcp(void)
{
	__u32 zero = 0;
	__u64 *set = idle_map.lookup(&zero);

	return set && *set ? *set : CT_TIMEOUT_TCP;
}

static __always_inline __u64 ct_timeout(const struct ct_value *entry, __u8 protocol)
{
	if (protocol == PROTOCOL_UDP)
		return entry->flags & CT_REPLIED ? CT_TIMEOUT_UDP_REPLIED : CT_TIMEOUT_UDP;
	if (protocol == PROTOCOL_ICMP || protocol == PROTOCOL_ICMPV6)
		return CT_TIMEOUT_ICMP;
	if (protocol != PROTOCOL_TCP)
		return CT_TIMEOUT_OTHER;
	if ((entry->flags & CT_FIN_OPENER) && (entry->flags & CT_FIN_REPLY))
		return CT_TIMEOUT_TCP_FIN; /* also when what still comes is answered by a reset */
	if (entry->flags & CT_RST)
		return CT_TIMEOUT_TCP_RST;
	if (entry->flags & (CT_REPLIED | CT_ADOPTED))
		return ct_idle_tcp();
	return CT_TIMEOUT_TCP_SYN;
}

/* Signed: another core may have written a moment that this one's clock has not reached yet. */
static __always_inline __s64 ct_silence(const struct ct_value *entry, __u64 now)
{
	return (__s64)(now - entry->last);
}

static __always_inline int ct_expired(const struct ct_value *entry, __u8 protocol, __u64 now)
{
	__s64 silence = ct_silence(entry, now);

	return silence > (__s64)CT_TIMEOUT_SHORTEST && silence > (__s64)ct_timeout(entry, protocol);
}

static __always_inline int ct_closed(const struct ct_value *entry)
{
	return (entry->flags & CT_RST) ||
	       ((entry->flags & CT_FIN_OPENER) && (entry->flags & CT_FIN_REPLY));
}

static __always_inline int ct_is_syn(const struct packet *packet)
{
	return packet->protocol == PROTOCOL_TCP && packet->kind == PACKET_PORTS &&
	       packet->fragment != FRAGMENT_LATER &&
	       (packet->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

/* Packets that can only begin something. */
static __always_inline int ct_starts(const struct packet *packet)
{
	return ct_is_syn(packet) || packet->kind == PACKET_ECHO_REQUEST;
}

/* ICMP that is not echo belongs to no conversation: it is judged alone, packet by packet. */
static __always_inline int ct_is_tracked(const struct packet *packet)
{
	return packet->kind != PACKET_ICMP && packet->kind != PACKET_ICMP_ERROR;
}

static __always_inline void ct_key_of(struct ct_key *key, __u32 endpoint,
				      const struct packet *packet, enum direction direction)
{
	int in = direction == DIR_INGRESS;

	key->endpoint = endpoint;
	key->local = in ? packet->destination : packet->source;
	key->remote = in ? packet->source : packet->destination;
	key->local_port = in ? packet->destination_port : packet->source_port;
	key->remote_port = in ? packet->source_port : packet->destination_port;
	key->protocol = packet->protocol;
}

/* Of a packet quoted in an ICMP error, which travelled the other way. */
static __always_inline void ct_key_of_quoted(struct ct_key *key, __u32 endpoint,
					     const struct packet *quoted, enum direction direction)
{
	ct_key_of(key, endpoint, quoted, direction == DIR_INGRESS ? DIR_EGRESS : DIR_INGRESS);
}

static __always_inline enum ct_state ct_state_of(const struct ct_value *entry,
						 const struct packet *packet,
						 enum direction direction, __u64 now)
{
	if (ct_expired(entry, packet->protocol, now))
		return CT_NEW;
	if (ct_starts(packet) && (entry->opener != direction || ct_closed(entry)))
		return CT_NEW;
	return entry->opener == direction ? CT_OPENER : CT_REPLY;
}

/* Judged since anything changed for this endpoint, or for who is at the other end. */
static __always_inline int ct_is_current(const struct ct_value *entry, __u64 generation,
					 __u64 tenure)
{
	return entry->generation == generation && entry->tenure == tenure;
}

/* The flags that this packet adds to its entry. */
static __always_inline __u8 ct_flags_after(__u8 flags, const struct packet *packet,
					   enum ct_state state)
{
	if (state == CT_REPLY)
		flags |= CT_REPLIED;
	if (packet->protocol != PROTOCOL_TCP)
		return flags;
	if (packet->tcp_flags & TCP_FIN)
		flags |= state == CT_REPLY ? CT_FIN_REPLY : CT_FIN_OPENER;
	if (packet->tcp_flags & TCP_RST)
		flags |= CT_RST;
	return flags;
}

#endif
