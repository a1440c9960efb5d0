// SPDX-License-Identifier: GPL-2.0

#include <linux/ethtool.h>

#ifdef CONFIG_INET

__rust_helper void
rust_helper_ethtool_link_ksettings_zero(struct ethtool_link_ksettings *ks)
{
	ethtool_link_ksettings_zero_link_mode(ks, supported);
	ethtool_link_ksettings_zero_link_mode(ks, advertising);
	ethtool_link_ksettings_zero_link_mode(ks, lp_advertising);
}

#endif
