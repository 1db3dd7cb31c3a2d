// SPDX-License-Identifier: Apache-2.0
// What memory accesses cost a GPU, counted while watched kernels run.
//
// The lanes of a warp make an access together: as one request. They run one after the other here, so a lane's
// k-th access at a place since the warp last met is taken to belong to the other lanes' k-th: exact where
// lanes leave out only the last of a loop's iterations, else a little too much.
//   global memory   is moved in sectors of 32 bytes; at least the distinct bytes / 32
//   shared memory   gives a word of 4 bytes from each of 32 banks in a pass, to 32 lanes; to 16 or 8 where
//                   each has 8 or 16 bytes; at least one pass for each such group of lanes
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <vector>

#include "kernels/gpu/simt/executor.h"

namespace lockstep::gpu_watch {

enum class Space : uint8_t { global, shared };

struct RequestCount {
  int64_t requests = 0;
  int64_t moved = 0, least = 0;  // sectors or passes
  RequestCount& operator+=(const RequestCount&);
};

class Counters {
 public:
  struct Key {
    const void* place = nullptr;
    Space space = Space::global;
    bool write = false;
    // clang-tidy 14 takes this for a null pointer.
    auto operator<=>(const Key&) const = default;  // NOLINT(modernize-use-nullptr)
  };
  using Places = std::map<Key, RequestCount>;

  explicit Counters(Places& to) : places_(to) {}  // of the launch
  void access(const Key&, uintptr_t address, size_t bytes, unsigned thread);
  void warp_met(unsigned warp);
  void block_met();

 private:
  static constexpr unsigned kWarp = simt_executor::kWarp;
  struct Access {
    uintptr_t address;
    uint32_t bytes, lane;
  };
  struct Open {  // requests at one place since the warp last met
    Key key;
    std::array<uint32_t, kWarp> made{};  // by each lane
    std::vector<std::vector<Access>> requests;
  };
  struct Warp {
    std::vector<Open> open;
    std::map<Key, size_t> at;
    size_t last = 0;  // lanes do the same one after the other: the next place is likely the next here
  };
  static RequestCount sectors(std::vector<Access>&);
  static RequestCount passes(const std::vector<Access>&);

  Places& places_;
  std::array<Warp, simt_executor::kMaxThreads / kWarp> warps_;
};

}  // namespace lockstep::gpu_watch
