// SPDX-License-Identifier: Apache-2.0
// Stand-ins for the CUDA runtime's entry points that the program uses, on host memory: a stream is a queue
// with a thread that works it off in order, an event a place in one, a capture the list of calls made
// meanwhile, which a replay makes again: streams that forked run beside each other then, as far as their
// events let them. Host code that touches the device's memory (memory.h), work that touches what other work may
// be writing (order.h), and calls that a capture forbids are found out.
#include <cuda_runtime_api.h>

#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "tests/standins/injection.h"
#include "tests/standins/stream.h"

using namespace lockstep::standins;

#define FATE(name) \
  if (fate_of(name) != Fate::succeed) return cudaErrorUnknown

struct Capture;
// The one that this thread has begun: until its end this thread may make no call that would have to wait for,
// or ask after, work that is not done.
thread_local std::shared_ptr<Capture> captures;

// What recordings and waits share; as the real one's, it lasts until the last of them is done, the event
// itself may be destroyed before.
struct EventState {
  std::mutex mutex;
  std::condition_variable changed;
  uint64_t recorded = 0, reached = 0;
  Clock clock;                                 // of what was recorded
  std::chrono::steady_clock::time_point when;  // it was last reached
};
using SharedEvent = std::shared_ptr<EventState>;

// A call on a stream that captures.
struct Call {
  enum class Kind { work, record, wait } kind;
  cudaStream_t stream;
  std::string what;
  std::vector<Access> accesses;
  Work work;
  SharedEvent event;
};
struct Capture {
  std::vector<Call> calls;
  std::vector<cudaStream_t> streams;  // the one that began it, and those that forked from it
  bool broken = false, ended = false;
};

#define FORBIDDEN_IN_A_CAPTURE()              \
  if (captures) {                             \
    captures->broken = true;                  \
    return cudaErrorStreamCaptureUnsupported; \
  }

struct CUevent_st {
  SharedEvent state = std::make_shared<EventState>();
  std::shared_ptr<Capture> capture;  // recorded in one
  cudaStream_t stream = nullptr;     // there
};

// Those that are there, for cudaFree.
std::mutex streams_mutex;
std::vector<cudaStream_t> streams;

struct CUstream_st {
  explicit CUstream_st(bool counted = true) : lane(new_lane()), worker([this] { work(); }) {
    if (counted) count(1);
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
  void add(const std::string& what, std::vector<Access> accesses, Work w) {
    if (capture) {
      unjoined = true;
      capture->calls.push_back({Call::Kind::work, this, what, std::move(accesses), std::move(w), nullptr});
    } else {
      lockstep::standins::work(clock, lane, what, accesses);
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
  const int lane;
  Clock clock;
  std::thread worker;
};

struct CUgraph_st {
  std::shared_ptr<Capture> capture;
};
// A replay is no work of the streams that captured: what they were given besides is as another stream's to it.
struct CUgraphExec_st {
  std::shared_ptr<Capture> capture;
  std::map<cudaStream_t, int> lanes;
};

namespace {

// The stream on which everything runs that names none. Streams of cudaStreamNonBlocking know nothing of it.
cudaStream_t legacy_stream() {
  static CUstream_st* const stream = new CUstream_st(false);
  return stream;
}
cudaStream_t stream_of(cudaStream_t s) { return s == nullptr || s == cudaStreamLegacy ? legacy_stream() : s; }

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

// After all work, as cudaFree's. A list of its own, as a drained stream may call for the lock.
void drain_all() {
  std::vector<cudaStream_t> all;
  {
    std::lock_guard lock(streams_mutex);
    all = streams;
  }
  for (cudaStream_t s : all) s->drain();
  host_waited_for_all();
}

// The card that CUDA_VISIBLE_DEVICES puts at that index; all of them without it.
std::vector<int> visible_cards() {
  const char* set = std::getenv("LOCKSTEP_STANDIN_GPUS");
  const int cards = set ? std::atoi(set) : 8;
  std::vector<int> visible;
  const char* choice = std::getenv("CUDA_VISIBLE_DEVICES");
  if (!choice) {
    for (int i = 0; i < cards; ++i) visible.push_back(i);
    return visible;
  }
  std::istringstream words(choice);
  for (std::string word; std::getline(words, word, ',') && std::atoi(word.c_str()) < cards;)
    visible.push_back(std::atoi(word.c_str()));
  return visible;
}

// What a copy touches of the memory that streams reach.
std::vector<Access> touched(const void* to, const void* from, size_t n) {
  std::vector<Access> all;
  if (allocation_at(from).begin) all.push_back(reads(from, n));
  if (allocation_at(to).begin) all.push_back(writes(to, n));
  return all;
}

// Which end of a copy is on the device is as it says.
cudaError_t check_copy(const void* to, const void* from, cudaMemcpyKind kind) {
  const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  const bool is = allocation_at(from).on_device == from_device && allocation_at(to).on_device == to_device;
  return is ? cudaSuccess : cudaErrorInvalidValue;
}

}  // namespace

void lockstep::standins::enqueue(void* stream, const std::string& what, std::vector<Access> accesses,
                                 Work work) {
  stream_of(static_cast<cudaStream_t>(stream))->add(what, std::move(accesses), std::move(work));
}

extern "C" {

const char* cudaGetErrorString(cudaError_t e) {
  switch (e) {
    case cudaSuccess:
      return "no error";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorUnknown:
      return "injected failure";
    default:
      return cudaGetErrorName(e);
  }
}
const char* cudaGetErrorName(cudaError_t e) {
#define NAME(name) \
  case name:       \
    return #name
  switch (e) {
    NAME(cudaErrorMemoryAllocation);
    NAME(cudaErrorNoDevice);
    NAME(cudaErrorInvalidValue);
    NAME(cudaErrorCapturedEvent);
    NAME(cudaErrorStreamCaptureUnsupported);
    NAME(cudaErrorStreamCaptureInvalidated);
    NAME(cudaErrorStreamCaptureIsolation);
    NAME(cudaErrorStreamCaptureUnjoined);
    default:
      return "cudaErrorUnknown";
  }
#undef NAME
}

cudaError_t cudaGetDeviceCount(int* devices) {
  FATE("cudaGetDeviceCount");
  *devices = static_cast<int>(visible_cards().size());
  return *devices > 0 ? cudaSuccess : cudaErrorNoDevice;
}
cudaError_t cudaSetDevice(int) {
  FATE("cudaSetDevice");
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int device) {
  FATE("cudaGetDeviceProperties");
  std::memset(p, 0, sizeof *p);
  std::strcpy(p->name, "stand-in");
  const int card = visible_cards().at(static_cast<size_t>(device));
  p->uuid.bytes[0] = static_cast<char>(0xA0 + card);
  p->pciBusID = 0x10 + card;
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
  if (s->capture) {
    s->capture->calls.push_back({Call::Kind::record, s, {}, {}, {}, e->state});
  } else {
    e->state->clock = s->clock;
    record(e->state, s);
  }
  return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t e) {
  FATE("cudaEventQuery");
  FORBIDDEN_IN_A_CAPTURE();
  if (e->capture) return cudaErrorCapturedEvent;
  std::lock_guard lock(e->state->mutex);
  if (e->state->reached != e->state->recorded) return cudaErrorNotReady;
  host_waited_for(e->state->clock);
  return cudaSuccess;
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
    if (e->capture->ended) return cudaErrorCapturedEvent;
    if (!s->capture) {  // forked into the capture
      s->capture = e->capture;
      s->capture->streams.push_back(s);
    }
    e->stream->unjoined = false;
    s->capture->calls.push_back({Call::Kind::wait, s, {}, {}, {}, e->state});
    return cudaSuccess;
  }
  if (s->capture) {  // work outside the capture
    s->capture->broken = true;
    return cudaErrorStreamCaptureIsolation;
  }
  s->clock.join(e->state->clock);
  delay(e->state, s);
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t s) {
  FATE("cudaStreamSynchronize");
  FORBIDDEN_IN_A_CAPTURE();
  stream_of(s)->drain();
  host_waited_for(stream_of(s)->clock);
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** p, size_t n) {
  if (fate_of("cudaMalloc") != Fate::succeed) return cudaErrorMemoryAllocation;
  FORBIDDEN_IN_A_CAPTURE();
  *p = allocate_device(n);
  return *p ? cudaSuccess : cudaErrorMemoryAllocation;
}
cudaError_t cudaFree(void* p) {
  if (!p) return cudaSuccess;
  FORBIDDEN_IN_A_CAPTURE();
  drain_all();
  forget(p, allocation_at(p).bytes);
  release_device(p);
  return cudaSuccess;
}
cudaError_t cudaMallocHost(void** p, size_t n) {
  if (fate_of("cudaMallocHost") != Fate::succeed) return cudaErrorMemoryAllocation;
  FORBIDDEN_IN_A_CAPTURE();
  *p = allocate_host(n);
  return cudaSuccess;
}
cudaError_t cudaFreeHost(void* p) {
  if (!p) return cudaSuccess;
  FORBIDDEN_IN_A_CAPTURE();
  drain_all();
  forget(p, allocation_at(p).bytes);
  release_host(p);
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* p, int value, size_t n, cudaStream_t s) {
  FATE("cudaMemsetAsync");
  stream_of(s)->add("cudaMemsetAsync", {writes(p, n)}, [=] { std::memset(real(p), value, n); });
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t n, cudaMemcpyKind kind, cudaStream_t s) {
  FATE("cudaMemcpyAsync");
  if (const cudaError_t e = check_copy(to, from, kind); e != cudaSuccess) return e;
  stream_of(s)->add("cudaMemcpyAsync", touched(to, from, n), [=] { std::memcpy(real(to), real(from), n); });
  return cudaSuccess;
}
// Of pageable memory to the device it returns when that is read, while the copy is still under way: it is work
// of the legacy stream.
cudaError_t cudaMemcpy(void* to, const void* from, size_t n, cudaMemcpyKind kind) {
  FATE("cudaMemcpy");
  FORBIDDEN_IN_A_CAPTURE();
  if (const cudaError_t e = check_copy(to, from, kind); e != cudaSuccess) return e;
  const auto* bytes = static_cast<const std::byte*>(from);
  if (kind == cudaMemcpyHostToDevice && !allocation_at(from).begin) {
    legacy_stream()->add("cudaMemcpy", {writes(to, n)}, [to, staged = std::vector(bytes, bytes + n)] {
      std::memcpy(real(to), staged.data(), staged.size());
    });
    return cudaSuccess;
  }
  legacy_stream()->add("cudaMemcpy", touched(to, from, n), [=] { std::memcpy(real(to), real(from), n); });
  return cudaStreamSynchronize(nullptr);
}

cudaError_t cudaStreamBeginCapture(cudaStream_t s, cudaStreamCaptureMode) {
  FATE("cudaStreamBeginCapture");
  s->capture = captures = std::make_shared<Capture>();
  s->capture->streams.push_back(s);
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t* graph) {
  const auto capture = s->capture;
  if (!capture) return cudaErrorStreamCaptureInvalidated;
  captures = nullptr;
  capture->ended = true;
  bool joined = true;
  for (cudaStream_t each : capture->streams) {
    joined &= each == s || !each->unjoined;
    each->capture = nullptr, each->unjoined = false;
  }
  // Events that were recorded in it know it still; what it holds is the graph's alone.
  const auto recorded = std::make_shared<Capture>(std::move(*capture));
  FATE("cudaStreamEndCapture");  // the capture has ended all the same
  if (recorded->broken) return cudaErrorStreamCaptureInvalidated;
  if (!joined) return cudaErrorStreamCaptureUnjoined;
  log_call("captured " + std::to_string(recorded->calls.size()));
  *graph = new CUgraph_st{recorded};
  count(1);
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  FATE("cudaGraphInstantiate");
  auto* made = new CUgraphExec_st{graph->capture, {}};
  for (cudaStream_t s : graph->capture->streams) made->lanes[s] = new_lane();
  *exec = made;
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
  std::map<cudaStream_t, Clock> clocks;
  std::map<const EventState*, Clock> events;
  clocks[exec->capture->streams.front()] = s->clock;
  for (const Call& call : exec->capture->calls) {
    Clock& clock = clocks[call.stream];
    switch (call.kind) {
      case Call::Kind::work:
        work(clock, exec->lanes.at(call.stream), call.what, call.accesses);
        call.stream->add_now(call.work);
        break;
      case Call::Kind::record:
        events[call.event.get()] = clock;
        record(call.event, call.stream);
        break;
      case Call::Kind::wait:
        clock.join(events[call.event.get()]);
        delay(call.event, call.stream);
        break;
    }
  }
  for (const auto& [stream, clock] : clocks) s->clock.join(clock);
  return cudaSuccess;
}

}  // extern "C"
