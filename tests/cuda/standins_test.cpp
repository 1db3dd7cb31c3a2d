// SPDX-License-Identifier: Apache-2.0
// What the stand-ins for CUDA and NCCL find out: each fault beside the code that is right.
#ifdef LOCKSTEP_STANDINS
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>
#include <nccl.h>

#include <memory>
#include <vector>

#define LOCKSTEP_DEVICE cuda
#include "kernels/core/error.h"
#include "kernels/gpu/cuda_table.h"
#include "runtime/cuda/gpu.h"
#include "tests/standins/stream.h"

namespace lockstep::testing::standins_test {
namespace {

using standins::reads;
using standins::writes;

class CudaStandIns : public ::testing::Test {
 protected:
  // Deaths are had in a process of their own: streams have threads.
  void SetUp() override {
    GTEST_FLAG_SET(death_test_style, "threadsafe");
    device_->synchronize();  // memory is zeroed on its stream
  }

  void work(const CudaStream& stream, const std::string& what, standins::Access access) {
    standins::enqueue(stream, what, {access}, [] {});
  }
  std::unique_ptr<DeviceRuntime> device_ = make_cuda_runtime(0);
  DeviceMemory memory_{*device_, 64};
  CudaStream one_, other_;
  CudaEvent event_;
};

TEST_F(CudaStandIns, HostCodeCannotTouchDeviceMemory) {
  int value = 7;
  device_->copy_to_device(memory_.data(), &value, sizeof value);
  device_->synchronize();
  EXPECT_DEATH(*memory_.as<volatile int>() = 1, "host code touches device memory");
  EXPECT_DEATH(value = *memory_.as<volatile int>(), "host code touches device memory");
  value = 0;
  device_->copy_to_host(&value, memory_.data(), sizeof value);
  device_->synchronize();
  EXPECT_EQ(value, 7);
}

TEST_F(CudaStandIns, WorkStaysWithinLiveMemory) {
  std::vector<int> host(1);
  EXPECT_DEATH(work(one_, "a kernel", reads(host.data(), 4)),
               "a kernel is given memory that is not the device's");
  EXPECT_DEATH(work(one_, "a kernel", reads(memory_.data(), 65)), "65 bytes that reach beyond an allocation");
  EXPECT_DEATH(
      {
        standins::enqueue(one_, "a kernel", {}, [this] { standins::real(memory_.as<char>())[4096] = 1; });
        cudaStreamSynchronize(one_);
      },
      "work on a stream touches device memory that is freed, or beyond its end");
  void* gone = nullptr;
  ASSERT_EQ(cudaMalloc(&gone, 64), cudaSuccess);
  cudaFree(gone);
  EXPECT_DEATH(work(one_, "a kernel", reads(gone, 4)), "not the device's");
  EXPECT_EQ(cudaMemcpyAsync(memory_.data(), host.data(), 4, cudaMemcpyDeviceToDevice, one_),
            cudaErrorInvalidValue);
}

TEST_F(CudaStandIns, TwoStreamsNeedAnEvent) {
  work(one_, "writer", writes(memory_.data(), 32));
  work(other_, "elsewhere", reads(memory_.as<char>() + 32, 32));
  EXPECT_DEATH(work(other_, "reader", reads(memory_.as<char>() + 28, 8)),
               "reader reads what writer writes, with no event between .byte 28 of 64");
  EXPECT_DEATH(
      {
        event_.record(one_);
        work(one_, "late writer", writes(memory_.data(), 4));
        event_.delay(other_);
        work(other_, "reader", reads(memory_.data(), 4));
      },
      "reader reads what late writer writes");
  event_.record(one_);
  event_.delay(other_);
  work(other_, "reader", reads(memory_.data(), 64));
  EXPECT_DEATH(work(one_, "next writer", writes(memory_.data(), 4)), "next writer writes what reader reads");
  EXPECT_DEATH(work(one_, "next writer", writes(memory_.data(), 4)), "no event between");
  work(one_, "beside it", reads(memory_.data(), 64));
  // What the host has waited for comes before what it starts.
  cudaStreamSynchronize(other_);
  work(one_, "next writer", writes(memory_.data(), 4));
}

TEST_F(CudaStandIns, ARecordedGraphIsOrderedByTheStreamThatStartsItAlone) {
  const CudaStream compute;
  const auto step = [&](bool joined) {
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t exec = nullptr;
    EXPECT_EQ(cudaStreamBeginCapture(compute, cudaStreamCaptureModeThreadLocal), cudaSuccess);
    event_.record(compute);
    event_.delay(other_);
    work(other_, "recorded writer", writes(memory_.data(), 4));
    event_.record(other_);
    event_.delay(compute);
    if (joined) work(compute, "recorded reader", reads(memory_.data(), 4));
    EXPECT_EQ(cudaStreamEndCapture(compute, &graph), cudaSuccess);
    EXPECT_EQ(cudaGraphInstantiate(&exec, graph, 0), cudaSuccess);
    cudaGraphDestroy(graph);
    return std::shared_ptr<CUgraphExec_st>(exec, cudaGraphExecDestroy);
  };
  const auto graph = step(true);
  for (int i = 0; i < 3; ++i) ASSERT_EQ(cudaGraphLaunch(graph.get(), compute), cudaSuccess);
  work(compute, "after it", writes(memory_.data(), 4));
  // The stream that took part in the recording knows nothing of the replay.
  EXPECT_DEATH(work(other_, "beside it", reads(memory_.data(), 4)), "beside it reads what after it writes");
  EXPECT_DEATH(
      {
        work(other_, "before it", writes(memory_.as<char>() + 8, 4));
        device_->synchronize();
        cudaGraphLaunch(graph.get(), compute);
        work(compute, "reader", reads(memory_.as<char>() + 8, 4));
      },
      "reader reads what before it writes");
}

// cudaFree waits for all work; ncclMemFree for none.
TEST_F(CudaStandIns, MemoryIsFreedAfterItsWork) {
  void* memory = nullptr;
  ASSERT_EQ(ncclMemAlloc(&memory, 64), ncclSuccess);
  work(one_, "a kernel", writes(memory, 64));
  EXPECT_DEATH(ncclMemFree(memory), "the host frees what a kernel writes");
  cudaStreamSynchronize(one_);
  EXPECT_EQ(ncclMemFree(memory), ncclSuccess);
  work(one_, "a kernel", writes(memory_.data(), 64));
  memory_ = DeviceMemory();
}

TEST_F(CudaStandIns, ACaptureForbidsWhatWaitsOrAsks) {
  auto& gpu = dynamic_cast<CudaRuntime&>(*device_);
  CudaEvent done;
  done.record(one_);
  void* other = nullptr;
  ASSERT_EQ(cudaMalloc(&other, 64), cudaSuccess);
  const std::vector<std::function<void()>> forbidden = {
      [] {
        void* p;
        cudaMalloc(&p, 4);
      },
      [] {
        void* p;
        cudaMallocHost(&p, 4);
      },
      [&] { cudaFree(other); },
      [&] { cudaEventQuery(done); },
      [&] { cudaStreamSynchronize(one_); },
      [&] { cudaMemcpy(other, &other, 4, cudaMemcpyHostToDevice); },
      [&] { cudaStreamWaitEvent(gpu.compute(), done, 0); },  // of work that is not in the capture
  };
  for (size_t i = 0; i < forbidden.size(); ++i) {
    device_->begin_recording();
    work(one_, "beside the capture", reads(other, 4));
    forbidden[i]();
    EXPECT_THROW(device_->end_recording(), Error) << i;
  }
  device_->begin_recording();
  const auto recorded = device_->end_recording();
  cudaFree(other);
}

// The bytes of a table may still travel when cudaMemcpy returns.
TEST_F(CudaStandIns, ATableIsThereBeforeItsFirstUse) {
  const std::vector<int> values = {1, 2, 3};
  EXPECT_DEATH(
      {
        cudaMemcpy(memory_.data(), values.data(), 12, cudaMemcpyHostToDevice);
        work(one_, "a kernel", reads(memory_.data(), 12));
      },
      "a kernel reads what cudaMemcpy writes");
  const cuda::DeviceTable<int> table(values);
  work(one_, "a kernel", reads(table.data(), 12));
  int second = 0;
  ASSERT_EQ(cudaMemcpyAsync(&second, table.data() + 1, 4, cudaMemcpyDeviceToHost, one_), cudaSuccess);
  cudaStreamSynchronize(one_);
  EXPECT_EQ(second, 2);
}

class CudaNcclStandIn : public CudaStandIns {
 protected:
  ncclComm_t start() {
    ncclUniqueId id;
    EXPECT_EQ(ncclGetUniqueId(&id), ncclSuccess);
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    ncclComm_t comm = nullptr;
    EXPECT_EQ(ncclCommInitRankConfig(&comm, 1, id, 0, &config), ncclInProgress);
    return comm;
  }
  static bool settles(ncclComm_t comm) {
    ncclResult_t state = ncclInProgress;
    for (int looks = 0; looks < 100 && state == ncclInProgress; ++looks) ncclCommGetAsyncError(comm, &state);
    return state == ncclSuccess;
  }
  ncclResult_t sum(ncclComm_t comm) {
    return ncclAllReduce(memory_.data(), memory_.data(), 16, ncclFloat, ncclSum, comm, one_);
  }
};

TEST_F(CudaNcclStandIn, ACallMustBeDoneBeforeTheNext) {
  EXPECT_EXIT(
      {
        const ncclComm_t comm = start();
        const bool refused = sum(comm) == ncclInvalidArgument && settles(comm);
        const ncclComm_t next = start();  // queued in the group that is still open
        std::exit(refused && !settles(next) ? 0 : 1);
      },
      ::testing::ExitedWithCode(0), "");
  const ncclComm_t comm = start();
  EXPECT_TRUE(settles(comm));
  EXPECT_EQ(sum(comm), ncclInProgress);
  EXPECT_TRUE(settles(comm));
  EXPECT_EQ(ncclCommDestroy(comm), ncclSuccess);
}

TEST_F(CudaNcclStandIn, ADestructionWaitsForRecordedCollectives) {
  const ncclComm_t comm = start();
  EXPECT_TRUE(settles(comm));
  auto& gpu = dynamic_cast<CudaRuntime&>(*device_);
  device_->begin_recording();
  ncclAllReduce(memory_.data(), memory_.data(), 16, ncclFloat, ncclSum, comm, gpu.compute());
  EXPECT_TRUE(settles(comm));
  auto recorded = device_->end_recording();
  EXPECT_DEATH(
      {
        const ncclComm_t late = start();
        settles(late);
        device_->begin_recording();
        ncclAllReduce(memory_.data(), memory_.data(), 16, ncclFloat, ncclSum, late, gpu.compute());
        settles(late);
        const auto kept = device_->end_recording();
        ncclCommDestroy(late);
      },
      "ncclCommDestroy waits for a recorded graph");
  recorded.reset();
  EXPECT_EQ(ncclCommDestroy(comm), ncclSuccess);
}

}  // namespace
}  // namespace lockstep::testing::standins_test
#endif
