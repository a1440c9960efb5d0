/* SPDX-License-Identifier: GPL-2.0 */
/*
 * ULP DDP: direct data placement by a NIC for upper layer protocols over TCP.
 *
 * The layer is written in Rust (rust/kernel/net/ulp_ddp.rs); this header is
 * its contract for C. A NIC driver provides &struct ulp_ddp_dev_ops through
 * net_device_ops.ulp_ddp_ops, a ULP provides &struct ulp_ddp_ulp_ops to
 * ulp_ddp_sk_add().
 *
 * A TCP sequence number, wherever it names a PDU, is the one of the first byte
 * of the PDU's header.
 */
#ifndef _NET_ULP_DDP_H
#define _NET_ULP_DDP_H

#include <linux/bits.h>
#include <linux/bvec.h>
#include <linux/errno.h>
#include <linux/netdev_features.h>
#include <linux/types.h>
#include <net/net_trackers.h>

struct net_device;
struct netlink_ext_ack;
struct sock;

/**
 * enum ulp_ddp_type - upper layer protocol of an offload
 * @ULP_DDP_NVME: NVMe over TCP, host side
 */
enum ulp_ddp_type {
	ULP_DDP_NVME = 1,
};

/* Bits of the capability masks, as in uapi/linux/ulp_ddp.h. */
#define ULP_DDP_CAP_BIT_NVME_TCP		BIT_ULL(0)
#define ULP_DDP_CAP_BIT_NVME_TCP_DDGST_RX	BIT_ULL(1)

/**
 * struct ulp_ddp_limits - what a device can offload
 * @type: protocol that is asked about, set by the caller
 * @max_ddp_sgl_len: DMA segments of one I/O, 0 for no limit
 * @io_threshold: smallest payload worth a setup, bytes
 * @tls: TLS on the same socket is possible
 * @full_ccid_range: any 16-bit command identifier can be used; if false they
 *	have to stay below &ulp_ddp_config.queue_size
 */
struct ulp_ddp_limits {
	enum ulp_ddp_type type;
	u32 max_ddp_sgl_len;
	u32 io_threshold;
	bool tls;
	bool full_ccid_range;
};

/**
 * struct ulp_ddp_config - what the ULP negotiated on one connection
 * @type: protocol
 * @affinity_hint: CPU that will consume the data, -1 for none
 * @queue_size: command identifiers in flight at most
 * @pfv: PDU format version (NVMe/TCP ICReq.PFV)
 * @cpda: controller PDU data alignment, dwords, 0's based (ICResp.CPDA)
 * @hdgst: header digests are on
 * @ddgst: data digests are on
 */
struct ulp_ddp_config {
	enum ulp_ddp_type type;
	s32 affinity_hint;
	u32 queue_size;
	u16 pfv;
	u8 cpda;
	bool hdgst;
	bool ddgst;
};

/**
 * struct ulp_ddp_seg - a piece of an I/O buffer as the device sees it
 * @addr: DMA address for the device of the socket's route
 * @len: bytes
 */
struct ulp_ddp_seg {
	dma_addr_t addr;
	u32 len;
};

/**
 * struct ulp_ddp_io - the destination of one read
 *
 * Owned by the ULP, zeroed when it is created. It must stay as it is from
 * ulp_ddp_setup() until &ulp_ddp_ulp_ops.ddp_teardown_done, and the buffer
 * mapped until &ulp_ddp_ulp_ops.ddp_unmap.
 *
 * @segs: the buffer in DMA segments, in the order of the payload
 * @bvecs: the same bytes in the same order as pages. A multi-page bvec is
 *	physically contiguous. Each page can be referenced (see
 *	sendpages_ok()).
 * @nr_segs: entries of @segs
 * @nr_bvecs: entries of @bvecs
 * @len: bytes of the buffer
 * @command_id: tag that the peer puts into the PDU header (CCCID)
 */
struct ulp_ddp_io {
	const struct ulp_ddp_seg *segs;
	const struct bio_vec *bvecs;
	u32 nr_segs;
	u32 nr_bvecs;
	u32 len;
	u16 command_id;
	/* private: of the layer */
	u32 state;
	struct ulp_ddp_io *prev;
	struct ulp_ddp_io *next;
};

/**
 * struct ulp_ddp_stats - counters of a device, names as in the netlink family
 * @rx_nvmeotcp_sk_add: sockets that were offloaded
 * @rx_nvmeotcp_sk_add_fail: sockets that the device refused
 * @rx_nvmeotcp_sk_del: sockets whose offload ended
 * @rx_nvmeotcp_ddp_setup: I/O buffers given to the device
 * @rx_nvmeotcp_ddp_setup_fail: I/O buffers that the device refused
 * @rx_nvmeotcp_ddp_teardown: I/O buffers taken back
 * @rx_nvmeotcp_drop: packets dropped because their offload was gone
 * @rx_nvmeotcp_resync: times the device asked for a PDU boundary
 * @rx_nvmeotcp_packets: packets with placed payload
 * @rx_nvmeotcp_bytes: bytes of placed payload
 */
struct ulp_ddp_stats {
	u64 rx_nvmeotcp_sk_add;
	u64 rx_nvmeotcp_sk_add_fail;
	u64 rx_nvmeotcp_sk_del;
	u64 rx_nvmeotcp_ddp_setup;
	u64 rx_nvmeotcp_ddp_setup_fail;
	u64 rx_nvmeotcp_ddp_teardown;
	u64 rx_nvmeotcp_drop;
	u64 rx_nvmeotcp_resync;
	u64 rx_nvmeotcp_packets;
	u64 rx_nvmeotcp_bytes;
};

/**
 * struct ulp_ddp_dev_caps - capability masks of a device
 * @hw: what the device can do
 * @active: what is switched on
 */
struct ulp_ddp_dev_caps {
	u64 hw;
	u64 active;
};

/**
 * struct ulp_ddp_dev_ops - operations of a NIC driver
 *
 * @limits, @sk_add, @sk_del and @set_caps may sleep. @setup, @teardown and
 * @resync must not, they run under rcu_read_lock(). @setup and @teardown of
 * different I/Os of one socket can run at once, and so can @resync.
 * None of them is called for a socket before its @sk_add succeeded or after
 * its @sk_del began.
 *
 * @sk_add and @sk_del must not take RTNL or the lock of the device: @sk_del
 * is also called before the device is stopped and by ulp_ddp_quiesce(), with
 * both held. Block devices can wait for both, so neither may wait for I/O;
 * the layer calls them with memalloc_noio_save() in effect.
 *
 * @limits: fill in the limits for &ulp_ddp_limits.type, 0 or -EOPNOTSUPP
 * @sk_add: offload an established socket; the socket is locked by nobody.
 *	The driver keeps its state with ulp_ddp_set_ctx()
 * @sk_del: end the offload. On return the device writes no more into any
 *	buffer of this socket and ulp_ddp_teardown_done() was called for every
 *	I/O that was set up
 * @setup: give a buffer to the device; any error means that this I/O is
 *	received the ordinary way
 * @teardown: take it back; ulp_ddp_teardown_done() follows, in any context,
 *	possibly before @teardown returns. The driver must not call that before
 *	@teardown of the I/O began, except from @sk_del. The I/O is valid until
 *	both have returned
 * @resync: there is a PDU header at TCP sequence @seq, as the device thought
 *	when it called ulp_ddp_resync_request()
 * @set_caps: switch capabilities, called under RTNL and the instance lock;
 *	a refusal is an error and changes nothing
 * @get_caps: read capabilities. Any context, without a lock
 * @get_stats: read counters, all of them: the driver counts what it was asked
 *	to do as well
 */
struct ulp_ddp_dev_ops {
	int (*limits)(struct net_device *netdev, struct ulp_ddp_limits *limits);
	int (*sk_add)(struct net_device *netdev, struct sock *sk,
		      const struct ulp_ddp_config *config);
	void (*sk_del)(struct net_device *netdev, struct sock *sk);
	int (*setup)(struct net_device *netdev, struct sock *sk,
		     struct ulp_ddp_io *io);
	void (*teardown)(struct net_device *netdev, struct sock *sk,
			 struct ulp_ddp_io *io);
	void (*resync)(struct net_device *netdev, struct sock *sk, u32 seq);
	int (*set_caps)(struct net_device *netdev, u64 active,
			struct netlink_ext_ack *extack);
	void (*get_caps)(struct net_device *netdev,
			 struct ulp_ddp_dev_caps *caps);
	void (*get_stats)(struct net_device *netdev,
			  struct ulp_ddp_stats *stats);
};

/**
 * struct ulp_ddp_ulp_ops - upcalls to the ULP
 * @ddp_unmap: the device is done with the memory of @io: its DMA mappings end
 *	here, because the device may be about to go. Called once for each
 *	successful ulp_ddp_setup(): before @ddp_teardown_done and not later than
 *	the driver's &ulp_ddp_dev_ops.sk_del. Any context
 * @ddp_teardown_done: neither the device nor the layer use @io any more. Called
 *	once for each successful ulp_ddp_setup(): after the ULP called
 *	ulp_ddp_teardown(), possibly before that returns, or at the latest
 *	before ulp_ddp_sk_del() returns. Any context
 */
struct ulp_ddp_ulp_ops {
	void (*ddp_unmap)(struct ulp_ddp_io *io);
	void (*ddp_teardown_done)(struct ulp_ddp_io *io);
};

#if IS_ENABLED(CONFIG_ULP_DDP)

/* For the ULP */

struct net_device *ulp_ddp_get_netdev(struct sock *sk,
				      netdevice_tracker *tracker);
bool ulp_ddp_is_cap_active(struct net_device *netdev, u64 cap);
int ulp_ddp_get_limits(struct net_device *netdev,
		       struct ulp_ddp_limits *limits);
int ulp_ddp_sk_add(struct net_device *netdev, struct sock *sk,
		   const struct ulp_ddp_config *config,
		   const struct ulp_ddp_ulp_ops *ops);
void ulp_ddp_sk_del(struct sock *sk);
int ulp_ddp_setup(struct sock *sk, struct ulp_ddp_io *io);
void ulp_ddp_teardown(struct sock *sk, struct ulp_ddp_io *io);
void ulp_ddp_pdu_header(struct sock *sk, u32 seq);
bool ulp_ddp_ddgst_active(struct sock *sk);
/*
 * Changes whenever some device takes sockets that it would have refused before.
 * A ULP whose offload has ended, or that got none, asks for a new one then.
 */
u32 ulp_ddp_generation(void);
/*
 * Under rcu_read_lock(): the device does not go away before rcu_read_unlock().
 * This is where to map an I/O, to set it up, and to unmap it if that fails.
 */
bool ulp_ddp_is_active(const struct sock *sk);
/* The device gave the offload up; what is left is ulp_ddp_sk_del(). */
bool ulp_ddp_has_ended(const struct sock *sk);

/* For the driver */

void *ulp_ddp_get_ctx(const struct sock *sk);
void ulp_ddp_set_ctx(struct sock *sk, void *ctx);
void ulp_ddp_resync_request(struct sock *sk, u32 seq);
void ulp_ddp_teardown_done(struct sock *sk, struct ulp_ddp_io *io);
/*
 * Around a change of the queues of a running device: all sockets are deleted,
 * and none is added before ulp_ddp_resume(). When a device is stopped or
 * started the layer does this by itself.
 */
void ulp_ddp_quiesce(struct net_device *netdev);
void ulp_ddp_resume(struct net_device *netdev);

/* For the networking core */

/*
 * The features are about to change. If they do not after all,
 * ulp_ddp_undo_features() with what this stored in @old.
 */
int ulp_ddp_set_features(struct net_device *netdev,
			 netdev_features_t features, u64 *old);
void ulp_ddp_undo_features(struct net_device *netdev, u64 old);

#else

static inline int ulp_ddp_set_features(struct net_device *netdev,
				       netdev_features_t features, u64 *old)
{
	*old = 0;
	return 0;
}

static inline void ulp_ddp_undo_features(struct net_device *netdev, u64 old)
{
}

#endif /* CONFIG_ULP_DDP */

#endif /* _NET_ULP_DDP_H */
