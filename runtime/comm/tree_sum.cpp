#include "runtime/comm/tree_sum.h"

#include <algorithm>
#include <bit>

namespace lockstep {

TreeSum::TreeSum(MpiWorld& world, MPI_Comm comm) : world_(world), comm_(comm) {
  MPI_Comm_rank(comm_, &rank_);
  MPI_Comm_size(comm_, &size_);
}

void TreeSum::exchange(std::span<float> send, std::span<float> receive, int partner) {
  constexpr auto kChunk = static_cast<size_t>(kMpiChunk);
  // Two halves differ by one float at most, so that both sides count the same chunks.
  for (size_t at = 0; at < std::max(send.size(), receive.size()); at += kChunk) {
    const auto part = [at](std::span<float> s) {
      const size_t begin = std::min(at, s.size());
      return s.subspan(begin, std::min(size_t{kChunk}, s.size() - begin));
    };
    const auto out = part(send), in = part(receive);
    world_.check(MPI_Sendrecv(out.data(), static_cast<int>(out.size()), MPI_FLOAT, partner, 0, in.data(),
                              static_cast<int>(in.size()), MPI_FLOAT, partner, 0, comm_, MPI_STATUS_IGNORE),
                 "allreduce");
  }
}

void TreeSum::run(std::span<float> data) {
  if (!std::has_single_bit(static_cast<unsigned>(size_))) {
    world_.allreduce(comm_, data.data(), static_cast<int64_t>(data.size()), MPI_FLOAT, sizeof(float),
                     MPI_SUM);
    return;
  }
  MpiWorld::Guard guard(world_, "allreduce");
  received_.resize(std::max(received_.size(), (data.size() + 1) / 2));
  struct Halves {
    std::span<float> mine, other;
  };
  std::array<Halves, 32> levels;
  size_t depth = 0;
  std::span<float> whole = data;
  for (int distance = 1; distance < size_; distance *= 2) {
    const size_t middle = whole.size() / 2;
    Halves h{whole.first(middle), whole.subspan(middle)};
    if (rank_ & distance) std::swap(h.mine, h.other);
    const auto theirs = std::span(received_).first(h.mine.size());
    exchange(h.other, theirs, rank_ ^ distance);
    for (size_t i = 0; i < h.mine.size(); ++i) h.mine[i] += theirs[i];
    levels[depth++] = h;
    whole = h.mine;
  }
  while (depth-- > 0) exchange(levels[depth].mine, levels[depth].other, rank_ ^ (1 << depth));
}

}  // namespace lockstep
