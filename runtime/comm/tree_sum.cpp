// SPDX-License-Identifier: Apache-2.0
#include "runtime/comm/tree_sum.h"

#include <algorithm>
#include <bit>

namespace lockstep {

TreeSum::TreeSum(MpiWorld& world, MPI_Comm comm) : world_(world), comm_(comm) {
  MPI_Comm_rank(comm_, &rank_);
  MPI_Comm_size(comm_, &size_);
}

void TreeSum::exchange(std::span<float> send, std::span<float> receive, int partner, Received received) {
  const auto part = [](std::span<float> s, size_t message) {
    const size_t begin = std::min(message * kMessage, s.size());
    return s.subspan(begin, std::min(kMessage, s.size() - begin));
  };
  // Two halves differ by one float at most, so that both sides count the same messages.
  const size_t count = (std::max(send.size(), receive.size()) + kMessage - 1) / kMessage;
  std::array<MPI_Request, kMessages> sent, came;
  for (size_t next = 0; next < count + kMessages; ++next) {
    const size_t place = next % kMessages;
    float* const buffer = received_.data() + place * kMessage;
    if (next >= kMessages && next - kMessages < count) {
      world_.check(MPI_Wait(&came[place], MPI_STATUS_IGNORE), "allreduce");
      world_.check(MPI_Wait(&sent[place], MPI_STATUS_IGNORE), "allreduce");
      if (received == Received::is_added) {
        const auto to = part(receive, next - kMessages);
        for (size_t i = 0; i < to.size(); ++i) to[i] += buffer[i];
      }
    }
    if (next < count) {
      const auto out = part(send, next), in = part(receive, next);
      float* const to = received == Received::is_added ? buffer : in.data();
      world_.check(MPI_Irecv(to, static_cast<int>(in.size()), MPI_FLOAT, partner, 0, comm_, &came[place]),
                   "allreduce");
      world_.check(
          MPI_Isend(out.data(), static_cast<int>(out.size()), MPI_FLOAT, partner, 0, comm_, &sent[place]),
          "allreduce");
    }
  }
}

void TreeSum::run(std::span<float> data) {
  if (!std::has_single_bit(static_cast<unsigned>(size_))) {
    world_.allreduce(comm_, data.data(), static_cast<int64_t>(data.size()), MPI_FLOAT, sizeof(float),
                     MPI_SUM);
    return;
  }
  received_.resize(kMessages * kMessage);
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
    exchange(h.other, h.mine, rank_ ^ distance, Received::is_added);
    levels[depth++] = h;
    whole = h.mine;
  }
  while (depth-- > 0)
    exchange(levels[depth].mine, levels[depth].other, rank_ ^ (1 << depth), Received::replaces);
}

}  // namespace lockstep
