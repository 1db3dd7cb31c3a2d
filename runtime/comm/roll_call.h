// SPDX-License-Identifier: Apache-2.0
// What ranks tell each other when one of them waits in vain: who has come to which call, and what else it is at.
// The watchdogs' threads ask and answer, so that a rank whose own thread hangs still answers, and one that is
// stopped or cut off does not.
#pragma once

#include <mpi.h>

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "kernels/core/error.h"

namespace lockstep {

// Communicators whose calls are counted; of more, nobody can say who has come.
inline constexpr int kCountedCommunicators = 16;

// What a rank says of itself.
struct Standing {
  std::array<uint32_t, kCountedCommunicators> begun{};  // calls begun, by communicator
  int64_t own_work_ns = 0;                              // how long it has been at OwnWork; 0: it is not
  int32_t waits = 0;                                    // whether it waits for others itself
  std::array<char, 128> at{};                           // what it does
};

// By messages of MPI_COMM_WORLD that nothing else uses: it is there before any communicator was made, and nobody
// waits for anybody. Not from two threads at a time. What cannot be sent or read is passed over.
class RollCall {
 public:
  RollCall();
  int rank() const { return rank_; }
  int size() const { return size_; }

  // Takes in what has come: answers, farewells, and questions, which it answers with `mine`.
  void serve(const Standing& mine);
  // Asks every other rank, and forgets what they have answered before.
  void ask(const Standing& mine);
  const std::optional<Standing>& answer(int rank) const { return answers_[static_cast<size_t>(rank)]; }
  bool all_have_answered() const;
  // This rank leaves because of `error`.
  void say_farewell(const Error& error);
  // The first that came.
  const std::optional<Error>& farewell() const { return farewell_; }

 private:
  struct Note;  // a question or an answer
  struct Sent {
    std::vector<std::byte> bytes;
    MPI_Request request;
  };
  bool next(int tag, int& from, std::vector<std::byte>& bytes) const;
  void send(int to, int tag, std::span<const std::byte> bytes);
  void drop_sent();

  int rank_ = 0, size_ = 1;
  uint32_t round_ = 0;  // of the questions
  std::vector<std::optional<Standing>> answers_;
  std::optional<Error> farewell_;
  std::vector<Sent> sent_;  // under way
};

}  // namespace lockstep
