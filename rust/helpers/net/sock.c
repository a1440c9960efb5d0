// SPDX-License-Identifier: GPL-2.0

#ifdef CONFIG_INET

#include <linux/net.h>
#include <linux/nsproxy.h>
#include <linux/sched.h>
#include <linux/skbuff.h>
#include <net/sock.h>
#include <net/tcp.h>

__rust_helper struct net *rust_helper_current_net_ns(void)
{
	return current->nsproxy->net_ns;
}

__rust_helper void rust_helper_lock_sock(struct sock *sk)
{
	lock_sock(sk);
}

__rust_helper int rust_helper_sk_disconnect(struct sock *sk)
{
	int ret;

	lock_sock(sk);
	/* Whoever waits for the connection finds out. */
	sk->sk_disconnects++;
	ret = sk->sk_prot->disconnect(sk, 0);
	release_sock(sk);
	return ret;
}

__rust_helper void rust_helper_sk_callback_read_lock(struct sock *sk)
{
	read_lock_bh(&sk->sk_callback_lock);
}

__rust_helper void rust_helper_sk_callback_read_unlock(struct sock *sk)
{
	read_unlock_bh(&sk->sk_callback_lock);
}

__rust_helper void rust_helper_sk_callback_write_lock(struct sock *sk)
{
	write_lock_bh(&sk->sk_callback_lock);
}

__rust_helper void rust_helper_sk_callback_write_unlock(struct sock *sk)
{
	write_unlock_bh(&sk->sk_callback_lock);
}

__rust_helper bool rust_helper_sk_stream_is_writeable(const struct sock *sk)
{
	return sk_stream_is_writeable(sk);
}

__rust_helper int rust_helper_sk_wmem_alloc_get(const struct sock *sk)
{
	return sk_wmem_alloc_get(sk);
}

__rust_helper void rust_helper_sk_clear_nospace(struct sock *sk)
{
	clear_bit(SOCK_NOSPACE, &sk->sk_socket->flags);
}

__rust_helper u8 rust_helper_sk_state(const struct sock *sk)
{
	return READ_ONCE(sk->sk_state);
}

__rust_helper bool rust_helper_sendpages_ok(struct page *page, size_t len,
					    size_t offset)
{
	return sendpages_ok(page, len, offset);
}

__rust_helper u32 rust_helper_tcp_skb_seq(const struct sk_buff *skb)
{
	return TCP_SKB_CB(skb)->seq;
}

#endif /* CONFIG_INET */
