// SPDX-License-Identifier: GPL-2.0

#ifdef CONFIG_ULP_DDP

#include <linux/if_vlan.h>
#include <linux/netdevice.h>
#include <linux/skbuff.h>
#include <net/genetlink.h>
#include <net/inet_connection_sock.h>
#include <net/netdev_lock.h>
#include <net/netlink.h>
#include <net/sock.h>
#include <net/tcp.h>
#include <net/ulp_ddp.h>

__rust_helper bool rust_helper_skb_is_ulp_crc(const struct sk_buff *skb)
{
	return skb_is_ulp_crc(skb);
}

__rust_helper int rust_helper_skb_cmp_ulp_crc(const struct sk_buff *skb1,
					      const struct sk_buff *skb2)
{
	return skb_cmp_ulp_crc(skb1, skb2);
}

__rust_helper void rust_helper_skb_copy_ulp_crc(struct sk_buff *to,
						const struct sk_buff *from)
{
	skb_copy_ulp_crc(to, from);
}

__rust_helper void rust_helper_skb_set_ulp_crc(struct sk_buff *skb, bool ok)
{
	skb->ulp_crc = ok;
}

__rust_helper struct inet_connection_sock *rust_helper_inet_csk(struct sock *sk)
{
	return inet_csk(sk);
}

__rust_helper struct dst_entry *rust_helper___sk_dst_get(const struct sock *sk)
{
	return __sk_dst_get(sk);
}

__rust_helper struct net_device *
rust_helper_dst_dev_rcu(const struct dst_entry *dst)
{
	return dst_dev_rcu(dst);
}

__rust_helper bool rust_helper_is_vlan_dev(const struct net_device *dev)
{
	return is_vlan_dev(dev);
}

__rust_helper struct net_device *
rust_helper_vlan_dev_real_dev(const struct net_device *dev)
{
	return vlan_dev_real_dev(dev);
}

__rust_helper void rust_helper_netdev_hold(struct net_device *dev,
					   netdevice_tracker *tracker, gfp_t gfp)
{
	netdev_hold(dev, tracker, gfp);
}

__rust_helper void rust_helper_netdev_put(struct net_device *dev,
					  netdevice_tracker *tracker)
{
	netdev_put(dev, tracker);
}

__rust_helper struct net *rust_helper_dev_net(const struct net_device *dev)
{
	return dev_net(dev);
}

__rust_helper void rust_helper_netdev_lock_ops(struct net_device *dev)
{
	netdev_lock_ops(dev);
}

__rust_helper void rust_helper_netdev_unlock_ops(struct net_device *dev)
{
	netdev_unlock_ops(dev);
}

__rust_helper u32 rust_helper_nla_get_u32(const struct nlattr *nla)
{
	return nla_get_u32(nla);
}

__rust_helper u64 rust_helper_nla_get_uint(const struct nlattr *nla)
{
	return nla_get_uint(nla);
}

__rust_helper int rust_helper_nla_put_u32(struct sk_buff *skb, int attrtype,
					  u32 value)
{
	return nla_put_u32(skb, attrtype, value);
}

__rust_helper int rust_helper_nla_put_uint(struct sk_buff *skb, int attrtype,
					   u64 value)
{
	return nla_put_uint(skb, attrtype, value);
}

__rust_helper struct net *rust_helper_genl_info_net(const struct genl_info *info)
{
	return genl_info_net(info);
}

__rust_helper void *rust_helper_genlmsg_iput(struct sk_buff *skb,
					     const struct genl_info *info)
{
	return genlmsg_iput(skb, info);
}

__rust_helper int rust_helper_genlmsg_reply(struct sk_buff *skb,
					    struct genl_info *info)
{
	return genlmsg_reply(skb, info);
}

__rust_helper
int rust_helper_genlmsg_multicast_netns(const struct genl_family *family,
					struct net *net, struct sk_buff *skb,
					u32 portid, unsigned int group,
					gfp_t flags)
{
	return genlmsg_multicast_netns(family, net, skb, portid, group, flags);
}

#ifdef CONFIG_RUST_ULP_DDP_KUNIT_TEST

__rust_helper bool rust_helper_tcp_skb_can_collapse_rx(const struct sk_buff *to,
						       const struct sk_buff *from)
{
	return tcp_skb_can_collapse_rx(to, from);
}

__rust_helper void rust_helper_skb_set_frag_list(struct sk_buff *skb,
						 struct sk_buff *list)
{
	skb_shinfo(skb)->frag_list = list;
	skb->len += list->len;
	skb->data_len += list->len;
	skb->truesize += list->truesize;
}

#endif /* CONFIG_RUST_ULP_DDP_KUNIT_TEST */

#endif /* CONFIG_ULP_DDP */
