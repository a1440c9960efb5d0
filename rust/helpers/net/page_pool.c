// SPDX-License-Identifier: GPL-2.0

#include <net/page_pool/helpers.h>

#ifdef CONFIG_PAGE_POOL

__rust_helper struct page *
rust_helper_page_pool_dev_alloc_pages(struct page_pool *pool)
{
	return page_pool_dev_alloc_pages(pool);
}

__rust_helper void rust_helper_page_pool_fragment_page(struct page *page,
						       long nr)
{
	page_pool_fragment_page(page, nr);
}

__rust_helper void rust_helper_page_pool_put_page(struct page_pool *pool,
						  struct page *page,
						  unsigned int dma_sync_size,
						  bool allow_direct)
{
	page_pool_put_page(pool, page, dma_sync_size, allow_direct);
}

__rust_helper void rust_helper_page_pool_ref_page(struct page *page)
{
	page_pool_ref_page(page);
}

__rust_helper dma_addr_t
rust_helper_page_pool_get_dma_addr(const struct page *page)
{
	return page_pool_get_dma_addr(page);
}

__rust_helper void
rust_helper_page_pool_dma_sync_for_cpu(const struct page_pool *pool,
				       const struct page *page, u32 offset,
				       u32 dma_sync_size)
{
	page_pool_dma_sync_for_cpu(pool, page, offset, dma_sync_size);
}

__rust_helper void
rust_helper_page_pool_dma_sync_for_device(const struct page_pool *pool,
					  const struct page *page, u32 offset,
					  u32 dma_sync_size)
{
	dma_sync_single_range_for_device(pool->p.dev,
					 page_pool_get_dma_addr(page),
					 offset + pool->p.offset, dma_sync_size,
					 page_pool_get_dma_dir(pool));
}

__rust_helper netmem_ref rust_helper_page_to_netmem(struct page *page)
{
	return page_to_netmem(page);
}

/* The pool that @page came from. */
__rust_helper struct page_pool *
rust_helper_page_pool_of_page(const struct page *page)
{
	return pp_page_to_nmdesc(page)->pp;
}

#endif
