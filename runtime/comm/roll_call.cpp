// SPDX-License-Identifier: Apache-2.0
#include "runtime/comm/roll_call.h"

#include <algorithm>
#include <cstring>

#include "runtime/comm/error_text.h"

namespace lockstep {
namespace {

constexpr int kNotes = 7151, kFarewells = 7152;  // tags
constexpr size_t kLongestFarewell = 1 << 16;

}  // namespace

struct RollCall::Note {
  static constexpr uint32_t kForm = 0x726f6c31;  // another build may have another
  uint32_t form = kForm;
  uint32_t round = 0;
  uint32_t asks = 0;  // 0: an answer
  Standing standing;
};

RollCall::RollCall() {
  MPI_Comm_rank(MPI_COMM_WORLD, &rank_);
  MPI_Comm_size(MPI_COMM_WORLD, &size_);
  answers_.resize(static_cast<size_t>(size_));
}

void RollCall::serve(const Standing& mine) {
  drop_sent();
  int from = 0;
  for (std::vector<std::byte> bytes; next(kNotes, from, bytes);) {
    Note note;
    if (bytes.size() != sizeof note) continue;
    std::memcpy(&note, bytes.data(), sizeof note);
    if (note.form != Note::kForm) continue;
    note.standing.at.back() = '\0';
    if (note.asks != 0) {
      Note answer;
      answer.round = note.round;
      answer.standing = mine;
      send(from, kNotes, std::as_bytes(std::span(&answer, 1)));
    } else if (note.round == round_) {
      answers_[static_cast<size_t>(from)] = note.standing;
    }
  }
  for (std::vector<std::byte> bytes; next(kFarewells, from, bytes);) {
    if (farewell_) continue;
    try {
      farewell_ = decode_error({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
    } catch (const std::exception&) {  // another build's
    }
  }
}

void RollCall::ask(const Standing& mine) {
  Note question;
  question.round = ++round_;
  question.asks = 1;
  question.standing = mine;
  std::fill(answers_.begin(), answers_.end(), std::nullopt);
  answers_[static_cast<size_t>(rank_)] = mine;
  for (int r = 0; r < size_; ++r)
    if (r != rank_) send(r, kNotes, std::as_bytes(std::span(&question, 1)));
}

bool RollCall::all_have_answered() const {
  return std::all_of(answers_.begin(), answers_.end(), [](const auto& a) { return a.has_value(); });
}

void RollCall::say_farewell(const Error& error) {
  const std::string text = encode(error);
  if (text.size() > kLongestFarewell) return;
  for (int r = 0; r < size_; ++r)
    if (r != rank_) send(r, kFarewells, std::as_bytes(std::span(text)));
}

bool RollCall::next(int tag, int& from, std::vector<std::byte>& bytes) const {
  int there = 0, count = 0;
  MPI_Status status;
  if (MPI_Iprobe(MPI_ANY_SOURCE, tag, MPI_COMM_WORLD, &there, &status) != MPI_SUCCESS || there == 0)
    return false;
  MPI_Get_count(&status, MPI_BYTE, &count);
  bytes.resize(static_cast<size_t>(count));
  from = status.MPI_SOURCE;
  return MPI_Recv(bytes.data(), count, MPI_BYTE, from, tag, MPI_COMM_WORLD, MPI_STATUS_IGNORE) == MPI_SUCCESS;
}

void RollCall::send(int to, int tag, std::span<const std::byte> bytes) {
  Sent s{{bytes.begin(), bytes.end()}, MPI_REQUEST_NULL};
  if (MPI_Isend(s.bytes.data(), static_cast<int>(s.bytes.size()), MPI_BYTE, to, tag, MPI_COMM_WORLD,
                &s.request) == MPI_SUCCESS)
    sent_.push_back(std::move(s));
}

void RollCall::drop_sent() {
  std::erase_if(sent_, [](Sent& s) {
    int done = 0;
    return MPI_Test(&s.request, &done, MPI_STATUS_IGNORE) != MPI_SUCCESS || done != 0;
  });
}

}  // namespace lockstep
