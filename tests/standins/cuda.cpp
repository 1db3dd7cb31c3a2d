// SPDX-License-Identifier: Apache-2.0
// Stand-ins for the CUDA runtime's entry points that the program uses, on host memory: a stream is a queue
// with a thread that works it off in order, an event a place in one, a capture the list of calls made
// meanwhile, which a replay makes again: streams that forked run beside each other then, as far as their
// events let them.
#include <cuda_runtime_api.h>

#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "tests/standins/injection.h"
#include "tests/standins/stream.h"

using lockstep::standins::count;
using lockstep::standins::Fate;
using lockstep::standins::fate_of;
using lockstep::standins::log_call;
using Work = lockstep::standins::Work;

#define FATE(name) \
  if (fate_of(name) != Fate::succeed) return cudaErrorUnknown

struct Capture {
  std::vector<Work> calls;
  std::vector<cudaStream_t> streams;  // the one that began it, and those that forked from it
  bool broken = false;
};

// What recordings and waits share; as the real one's, it lasts until the last of them is done, the event
// itself may be destroyed before.
struct EventState {
  std::mutex mutex;
  std::condition_variable changed;
  uint64_t recorded = 0, reached = 0;
  std::chrono::steady_clock::time_point when;  // it was last reached
};
using SharedEvent = std::shared_ptr<EventState>;
void record(const SharedEvent& e, cudaStream_t s);
void delay(const SharedEvent& e, cudaStream_t s);

struct CUevent_st {
  SharedEvent state = std::make_shared<EventState>();
  std::shared_ptr<Capture> capture;  // recorded in one
  cudaStream_t stream = nullptr;     // there
};

// Those that are there, for cudaFree.
std::mutex streams_mutex;
std::vector<cudaStream_t> streams;

struct CUstream_st {
  CUstream_st() : worker([this] { work(); }) {
    count(1);
    std::lock_guard lock(streams_mutex);
    streams.push_back(this);
  }
  ~CUstream_st() {
    {
      std::lock_guard lock(streams_mutex);
      std::erase(streams, this);
    }
    {
      std::lock_guard lock(mutex);
      ending = true;
    }
    changed.notify_all();
    worker.join();
    count(-1);
  }
  void add(Work w) {
    if (capture) {
      unjoined = true;
      capture->calls.push_back([this, w = std::move(w)] { add_now(w); });
    } else {
      add_now(std::move(w));
    }
  }
  void add_now(Work w) {
    {
      std::lock_guard lock(mutex);
      queue.push_back(std::move(w));
    }
    changed.notify_all();
  }
  void work() {
    for (;;) {
      std::unique_lock lock(mutex);
      changed.wait(lock, [this] { return ending || !queue.empty(); });
      if (queue.empty()) return;
      Work w = std::move(queue.front());
      queue.pop_front();
      busy = true;
      lock.unlock();
      w();
      lock.lock();
      busy = false;
      changed.notify_all();
    }
  }
  void drain() {
    std::unique_lock lock(mutex);
    changed.wait(lock, [this] { return queue.empty() && !busy; });
  }
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<Work> queue;
  bool ending = false, busy = false;
  std::shared_ptr<Capture> capture;
  bool unjoined = false;  // has captured work that no other stream waits for
  std::thread worker;
};

struct CUgraph_st {
  std::shared_ptr<Capture> capture;
};
struct CUgraphExec_st {
  std::shared_ptr<Capture> capture;
};

void record(const SharedEvent& e, cudaStream_t s) {
  uint64_t place;
  {
    std::lock_guard lock(e->mutex);
    place = ++e->recorded;
  }
  s->add_now([e, place] {
    {
      std::lock_guard lock(e->mutex);
      e->reached = place;
      e->when = std::chrono::steady_clock::now();
    }
    e->changed.notify_all();
  });
}

void delay(const SharedEvent& e, cudaStream_t s) {
  uint64_t place;
  {
    std::lock_guard lock(e->mutex);
    place = e->recorded;
  }
  s->add_now([e, place] {
    std::unique_lock lock(e->mutex);
    e->changed.wait(lock, [&] { return e->reached >= place; });
  });
}

void lockstep::standins::enqueue(void* stream, Work work) {
  static_cast<cudaStream_t>(stream)->add(std::move(work));
}

extern "C" {

const char* cudaGetErrorString(cudaError_t e) {
  return e == cudaSuccess                 ? "no error"
         : e == cudaErrorMemoryAllocation ? "out of memory"
                                          : "injected failure";
}
const char* cudaGetErrorName(cudaError_t e) {
  return e == cudaErrorMemoryAllocation ? "cudaErrorMemoryAllocation" : "cudaErrorUnknown";
}

cudaError_t cudaGetDeviceCount(int* devices) {
  FATE("cudaGetDeviceCount");
  const char* set = std::getenv("LOCKSTEP_STANDIN_GPUS");
  *devices = set ? std::atoi(set) : 8;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int) {
  FATE("cudaSetDevice");
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int) {
  FATE("cudaGetDeviceProperties");
  std::memset(p, 0, sizeof *p);
  std::strcpy(p->name, "stand-in");
  const char* capability = std::getenv("LOCKSTEP_STANDIN_CAPABILITY");  // "80": 8.0
  const int number = capability ? std::atoi(capability) : 90;
  p->major = number / 10, p->minor = number % 10;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  *least = 0, *greatest = -1;
  return cudaSuccess;
}
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* s, unsigned, int) {
  FATE("cudaStreamCreateWithPriority");
  *s = new CUstream_st;
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t s) {
  delete s;
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* e, unsigned) {
  FATE("cudaEventCreateWithFlags");
  *e = new CUevent_st;
  count(1);
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t e) {
  delete e;
  count(-1);
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s) {
  FATE("cudaEventRecord");
  e->capture = s->capture, e->stream = s;
  if (s->capture)
    s->capture->calls.push_back([state = e->state, s] { record(state, s); });
  else
    record(e->state, s);
  return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t e) {
  FATE("cudaEventQuery");
  std::lock_guard lock(e->state->mutex);
  return e->state->reached == e->state->recorded ? cudaSuccess : cudaErrorNotReady;
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t from, cudaEvent_t to) {
  FATE("cudaEventElapsedTime");
  std::scoped_lock lock(from->state->mutex, to->state->mutex);
  *milliseconds = std::chrono::duration<float, std::milli>(to->state->when - from->state->when).count();
  return cudaSuccess;
}
cudaError_t cudaGetLastError() { return cudaSuccess; }
cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned) {
  FATE("cudaStreamWaitEvent");
  if (e->capture) {
    if (!s->capture) {  // forked into the capture
      s->capture = e->capture;
      s->capture->streams.push_back(s);
    }
    e->stream->unjoined = false;
    s->capture->calls.push_back([state = e->state, s] { delay(state, s); });
    return cudaSuccess;
  }
  if (s->capture) {  // work outside the capture
    s->capture->broken = true;
    return cudaErrorStreamCaptureIsolation;
  }
  delay(e->state, s);
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** p, size_t n) {
  if (fate_of("cudaMalloc") != Fate::succeed) return cudaErrorMemoryAllocation;
  *p = std::aligned_alloc(256, (n + 255) / 256 * 256);
  std::memset(*p, 0xA5, n);  // a GPU's memory isn't zero either
  count(1);
  return cudaSuccess;
}
cudaError_t cudaFree(void* p) {
  if (p) {
    // As the real one: after all work. A list of its own, as a drained stream may call for the lock.
    std::vector<cudaStream_t> all;
    {
      std::lock_guard lock(streams_mutex);
      all = streams;
    }
    for (cudaStream_t s : all) s->drain();
    count(-1);
  }
  std::free(p);
  return cudaSuccess;
}
cudaError_t cudaMallocHost(void** p, size_t n) { return cudaMalloc(p, n); }
cudaError_t cudaFreeHost(void* p) { return cudaFree(p); }
cudaError_t cudaMemsetAsync(void* p, int value, size_t n, cudaStream_t s) {
  FATE("cudaMemsetAsync");
  s->add([=] { std::memset(p, value, n); });
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t n, cudaMemcpyKind, cudaStream_t s) {
  FATE("cudaMemcpyAsync");
  s->add([=] { std::memcpy(to, from, n); });
  return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t s, cudaStreamCaptureMode) {
  FATE("cudaStreamBeginCapture");
  s->capture = std::make_shared<Capture>();
  s->capture->streams.push_back(s);
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t* graph) {
  FATE("cudaStreamEndCapture");
  const auto capture = s->capture;
  if (!capture) return cudaErrorStreamCaptureInvalidated;
  bool joined = true;
  for (cudaStream_t each : capture->streams) {
    joined &= each == s || !each->unjoined;
    each->capture = nullptr, each->unjoined = false;
  }
  if (capture->broken) return cudaErrorStreamCaptureInvalidated;
  if (!joined) return cudaErrorStreamCaptureUnjoined;
  log_call("captured " + std::to_string(capture->calls.size()));
  *graph = new CUgraph_st{capture};
  count(1);
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  FATE("cudaGraphInstantiate");
  *exec = new CUgraphExec_st{graph->capture};
  count(1);
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  count(-1);
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  delete exec;
  count(-1);
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t s) {
  FATE("cudaGraphLaunch");
  log_call("replay");
  (void)s;  // the one that captured
  for (const Work& call : exec->capture->calls) call();
  return cudaSuccess;
}

}  // extern "C"
