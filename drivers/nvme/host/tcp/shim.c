// SPDX-License-Identifier: GPL-2.0
/*
 * What Rust cannot reach: inline functions that use symbols of nvme-core or
 * its private headers, and a module parameter that can be changed at run time.
 */
#include <linux/blk-mq.h>
#include <linux/blk-mq-dma.h>
#include <linux/dma-mapping.h>
#include <linux/moduleparam.h>

#include "../nvme.h"
#include "../fabrics.h"
#include "shim.h"

static bool ddp_offload = true;
module_param(ddp_offload, bool, 0644);
MODULE_PARM_DESC(ddp_offload, "use direct data placement of the network device for new connections (default true)");

bool nvme_tcp_shim_ddp_offload(void)
{
	return READ_ONCE(ddp_offload);
}

struct request *nvme_tcp_shim_find_rq(struct blk_mq_tags *tags, u16 command_id)
{
	return nvme_find_rq(tags, command_id);
}

bool nvme_tcp_shim_check_ready(struct nvme_ctrl *ctrl, struct request *rq,
			       bool queue_live)
{
	return nvme_check_ready(ctrl, rq, queue_live);
}

void nvme_tcp_shim_start_request(struct request *rq)
{
	nvme_start_request(rq);
}

bool nvme_tcp_shim_try_complete_req(struct request *rq, u16 status, u64 result)
{
	union nvme_result res = { .u64 = cpu_to_le64(result) };

	return nvme_try_complete_req(rq, cpu_to_le16(status), res);
}

void nvme_tcp_shim_complete_async_event(struct nvme_ctrl *ctrl, u16 status,
					u64 result)
{
	union nvme_result res = { .u64 = cpu_to_le64(result) };

	nvme_complete_async_event(ctrl, cpu_to_le16(status), &res);
}

void nvme_tcp_shim_complete_timed_out(struct request *rq)
{
	nvmf_complete_timed_out_request(rq);
}

void nvme_tcp_shim_auth_stop(struct nvme_ctrl *ctrl)
{
	nvme_auth_stop(ctrl);
}

u16 nvme_tcp_shim_cid(struct request *rq)
{
	return nvme_cid(rq);
}

unsigned int nvme_tcp_shim_nr_io_queues(struct nvmf_ctrl_options *opts)
{
	return nvmf_nr_io_queues(opts);
}

const char *nvme_tcp_shim_subsysnqn(struct nvme_ctrl *ctrl)
{
	return nvmf_ctrl_subsysnqn(ctrl);
}

bool nvme_tcp_shim_sgl_supported(struct nvme_ctrl *ctrl)
{
	return nvme_ctrl_sgl_supported(ctrl);
}

u32 nvme_tcp_shim_data_len(struct request *rq)
{
	return blk_rq_nr_phys_segments(rq) ? blk_rq_payload_bytes(rq) : 0;
}

bool nvme_tcp_shim_is_write(struct request *rq)
{
	return rq_data_dir(rq) == WRITE;
}

bool nvme_tcp_shim_is_read(struct request *rq)
{
	return req_op(rq) == REQ_OP_READ;
}

const struct bio_vec *nvme_tcp_shim_special_vec(struct request *rq)
{
	return rq->rq_flags & RQF_SPECIAL_PAYLOAD ? &rq->special_vec : NULL;
}

int nvme_tcp_shim_map_cpu(struct blk_mq_tag_set *set, unsigned int hctx)
{
	unsigned int map;
	int cpu;

	for (map = 0; map < set->nr_maps; map++)
		for_each_online_cpu(cpu)
			if (set->map[map].mq_map[cpu] == hctx)
				return cpu;
	return WORK_CPU_UNBOUND;
}

bool nvme_tcp_shim_dma_unmap(struct request *rq, struct device *dma_dev,
			     struct dma_iova_state *state, size_t len)
{
	return blk_rq_dma_unmap(rq, dma_dev, state, len, PCI_P2PDMA_MAP_NONE);
}

bool nvme_tcp_shim_dma_need_sync(struct device *dma_dev, dma_addr_t addr)
{
	return dma_need_sync(dma_dev, addr);
}
