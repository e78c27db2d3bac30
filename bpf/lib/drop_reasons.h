/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Every way a packet can leave the programs. Below DROP_FIRST it was forwarded.
 *
 * Numbers and names of drops follow Cilium's where one fits, so that its tools read our flows;
 * 240 and above are ours. Codes are only added, never renumbered.
 * Update also: DropReason and ForwardReason in enforcer/datapath/flows.py (a test compares them).
 */
#ifndef RINGFENCE_DROP_REASONS_H
#define RINGFENCE_DROP_REASONS_H

enum reason {
	FORWARD_NONE = 0, /* not decided yet; never leaves the programs */
	FORWARD_SELF = 1, /* the pod and itself */
	FORWARD_HOST = 2, /* the pod's own node: from a local socket, or towards the node */
	FORWARD_NOT_ISOLATED = 3,
	FORWARD_POLICY_ALLOWED = 4,
	FORWARD_REPLY = 5, /* answers a connection that was let through */
	FORWARD_RELATED = 6, /* ICMP error about a connection that was let through */
	FORWARD_LINK = 7, /* ARP, neighbour discovery and other link-scope housekeeping */
	FORWARD_REDIRECTED = 8, /* to the proxy, which judges requests */
	FORWARD_PROXIED = 9, /* on from the proxy */

	DROP_FIRST = 130,
	DROP_INVALID_SOURCE_MAC = 130,
	DROP_INVALID_SOURCE_IP = 132,
	DROP_POLICY_DENIED = 133,
	DROP_INVALID_PACKET_DROPPED = 134,
	DROP_UNSUPPORTED_L3_PROTOCOL = 139,
	DROP_UNKNOWN_L4_PROTOCOL = 142,
	DROP_CT_MAP_INSERTION_FAILED = 155,
	DROP_INVALID_IPV6_EXTENSION_HEADER = 156,
	DROP_IP_FRAGMENTATION_NOT_SUPPORTED = 157,
	DROP_NO_CONFIGURATION_AVAILABLE_TO_DETERMINE_POLICY_DECISION = 165,
	DROP_UNSUPPORTED_L2_PROTOCOL = 166,
	DROP_ENCAP_PROHIBITED = 170,
	DROP_UNKNOWN_SENDER = 172,
	DROP_FIRST_LOGICAL_DATAGRAM_FRAGMENT_NOT_FOUND = 175,
	DROP_PROXY_REDIRECTION_NOT_SUPPORTED_FOR_PROTOCOL = 180, /* no proxy takes it */
	DROP_POLICY_DENY = 181,
	DROP_RATE_LIMITED = 198,
	DROP_EP_NOT_READY = 203,
	DROP_TENANT_WALL = 240,
	DROP_INVALID_DESTINATION_IP = 241,
	DROP_INVALID_CHECKSUM = 242,
	DROP_FORGED = 243, /* on a leg of the proxy, and not by whom it says */
};

enum verdict {
	VERDICT_FORWARDED = 0,
	VERDICT_DROPPED = 1,
	VERDICT_AUDIT = 2,
	VERDICT_REDIRECTED = 3,
};

#endif
