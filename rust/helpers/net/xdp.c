// SPDX-License-Identifier: GPL-2.0

#include <linux/bpf.h>
#include <linux/bpf_trace.h>
#include <linux/filter.h>
#include <linux/skbuff.h>
#include <net/xdp.h>

#ifdef CONFIG_INET

#ifndef CONFIG_BPF_SYSCALL
__rust_helper void rust_helper_bpf_prog_inc(struct bpf_prog *prog)
{
	bpf_prog_inc(prog);
}

__rust_helper void rust_helper_bpf_prog_put(struct bpf_prog *prog)
{
	bpf_prog_put(prog);
}
#endif

__rust_helper u32 rust_helper_bpf_prog_run_xdp(const struct bpf_prog *prog,
					       struct xdp_buff *xdp)
{
	return bpf_prog_run_xdp(prog, xdp);
}

__rust_helper void
rust_helper_trace_xdp_exception(const struct net_device *dev,
				const struct bpf_prog *prog, u32 act)
{
	trace_xdp_exception(dev, prog, act);
}

__rust_helper void
rust_helper_xdp_rxq_info_detach_mem_model(struct xdp_rxq_info *xdp_rxq)
{
	xdp_rxq_info_detach_mem_model(xdp_rxq);
}

__rust_helper struct skb_shared_info *
rust_helper_xdp_get_shared_info_from_buff(const struct xdp_buff *xdp)
{
	return xdp_get_shared_info_from_buff(xdp);
}

__rust_helper bool rust_helper_xdp_buff_add_frag(struct xdp_buff *xdp,
						 netmem_ref netmem, u32 offset,
						 u32 size, u32 truesize)
{
	return xdp_buff_add_frag(xdp, netmem, offset, size, truesize);
}

__rust_helper void
rust_helper_xdp_update_skb_frags_info(struct sk_buff *skb, u8 nr_frags,
				      unsigned int size, unsigned int truesize,
				      u32 xdp_flags)
{
	xdp_update_skb_frags_info(skb, nr_frags, size, truesize, xdp_flags);
}

__rust_helper void rust_helper_skb_metadata_set(struct sk_buff *skb,
						u8 meta_len)
{
	skb_metadata_set(skb, meta_len);
}

#endif
