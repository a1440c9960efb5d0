/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _NVME_TCP_SHIM_H
#define _NVME_TCP_SHIM_H

#include <linux/types.h>

struct bio_vec;
struct blk_mq_tag_set;
struct blk_mq_tags;
struct device;
struct dma_iova_state;
struct nvme_ctrl;
struct nvmf_ctrl_options;
struct request;

bool nvme_tcp_shim_ddp_offload(void);
struct request *nvme_tcp_shim_find_rq(struct blk_mq_tags *tags, u16 command_id);
bool nvme_tcp_shim_check_ready(struct nvme_ctrl *ctrl, struct request *rq,
			       bool queue_live);
void nvme_tcp_shim_start_request(struct request *rq);
bool nvme_tcp_shim_try_complete_req(struct request *rq, u16 status, u64 result);
void nvme_tcp_shim_complete_async_event(struct nvme_ctrl *ctrl, u16 status,
					u64 result);
void nvme_tcp_shim_complete_timed_out(struct request *rq);
void nvme_tcp_shim_auth_stop(struct nvme_ctrl *ctrl);
u16 nvme_tcp_shim_cid(struct request *rq);
unsigned int nvme_tcp_shim_nr_io_queues(struct nvmf_ctrl_options *opts);
const char *nvme_tcp_shim_subsysnqn(struct nvme_ctrl *ctrl);
bool nvme_tcp_shim_sgl_supported(struct nvme_ctrl *ctrl);
u32 nvme_tcp_shim_data_len(struct request *rq);
bool nvme_tcp_shim_is_write(struct request *rq);
bool nvme_tcp_shim_is_read(struct request *rq);
const struct bio_vec *nvme_tcp_shim_special_vec(struct request *rq);
int nvme_tcp_shim_map_cpu(struct blk_mq_tag_set *set, unsigned int hctx);
bool nvme_tcp_shim_dma_unmap(struct request *rq, struct device *dma_dev,
			     struct dma_iova_state *state, size_t len);
bool nvme_tcp_shim_dma_need_sync(struct device *dma_dev, dma_addr_t addr);

#endif /* _NVME_TCP_SHIM_H */
