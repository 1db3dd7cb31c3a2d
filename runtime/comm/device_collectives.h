// SPDX-License-Identifier: Apache-2.0
// Collectives on a device's memory, as NCCL does them: in the order of the device's work, without the host,
// and so part of what DeviceRuntime records. Every rank calls the same ones in the same order.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "runtime/comm/communicator.h"
#include "runtime/device/device_runtime.h"

namespace lockstep {

class DeviceCollectives {
 public:
  virtual ~DeviceCollectives() = default;
  // Zeroed memory for the gradients, known to the network where that is possible; and with it what they are
  // rounded into, where they are. Called once.
  virtual DeviceMemory allocate(int64_t bytes) = 0;
  // What allocate() of so many bytes takes beside them.
  virtual int64_t staging_bytes(int64_t bytes) const = 0;
  // Sum over the ranks, in place: after the work so far, and beside the work that follows until join().
  // `name` ("allreduce of bucket 0"): for the record of a failure.
  virtual void start_allreduce(float* data, int64_t count, const std::string& name) = 0;
  // The same of gradients, which may be rounded on their way (NcclOptions), behind so many metrics, which are
  // not.
  virtual void start_gradient_allreduce(float* data, int64_t count, int64_t metrics,
                                        const std::string& name) = 0;
  // What follows comes after every allreduce that was started.
  virtual void join() = 0;
  // recv: `bytes` of every rank, in rank order. After the work so far, before what follows.
  virtual void all_gather(const void* send, void* recv, int64_t bytes, const std::string& name) = 0;
};

struct NcclOptions {
  double deadline_seconds = 300;  // work that takes longer: a peer is lost
  // Called once before the process leaves with 75. The error names the collective that began last.
  std::function<void(const LostPeer&)> on_peer_lost;
  // What gradients are summed as. bf16 is half the traffic: rounded before the sum, and as often again as
  // NCCL passes partial sums on.
  DType gradients = DType::f32;
};

bool built_with_nccl();
// Whether this build has NCCL and it is to be had here; loads it.
bool has_nccl();
// "NCCL 2.28.3", or why there is none: what the loader said of each place where it was looked for.
std::string nccl_description();
// One GPU a rank; `device` is a CUDA one, and outlives the result. What records its collectives goes before it.
// The unique id goes over `control`; collective over it. Errors: config (78) where a rank has no NCCL, disagree
// (76) where two have one GPU, both on all ranks; unavailable (69) where NCCL cannot start.
std::unique_ptr<DeviceCollectives> make_nccl_collectives(DeviceRuntime& device, Communicator& control,
                                                         NcclOptions options);

}  // namespace lockstep
