// SPDX-License-Identifier: GPL-2.0

#include <linux/sched/mm.h>

__rust_helper unsigned int rust_helper_memalloc_flags_save(unsigned int flags)
{
	return memalloc_flags_save(flags);
}

__rust_helper void rust_helper_memalloc_flags_restore(unsigned int flags)
{
	memalloc_flags_restore(flags);
}
