// SPDX-License-Identifier: Apache-2.0
#include "runtime/comm/mpi_world.h"

#include <fmt/ranges.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>

#include "kernels/core/error.h"
#include "runtime/comm/whereabouts.h"
#include "runtime/files/host_name.h"
#include "runtime/telemetry/say.h"
#include "runtime/telemetry/trace.h"

namespace lockstep {
namespace {

using namespace std::chrono_literals;

constexpr auto kLook = 200ms;
constexpr int64_t kSecond = 1'000'000'000;
// For a watchdog's answer, which on an idle machine takes two looks.
constexpr int64_t kAnswer = 5 * kSecond;
// Between two looks: this process did not run.
constexpr int64_t kStopped = 2 * kSecond;
// For the first answer from another host.
constexpr int64_t kProbe = 10 * kSecond;
// Between inquiries about a call that may still end.
constexpr int64_t kAgain = 5 * kSecond;
// What has come to all and does not end.
constexpr int64_t kUnderWay = 15 * kSecond;

bool mpi_was_started = false;

double seconds(int64_t ns) { return static_cast<double>(ns / 100'000'000) / 10; }

Error peer_lost(const std::string& what) { return Error(Exit::try_again, "E_PEER_LOST", what); }

}  // namespace

bool all_agree(MPI_Comm comm, bool mine) {
  int yes = mine ? 1 : 0;
  return MPI_Allreduce(MPI_IN_PLACE, &yes, 1, MPI_INT, MPI_MIN, comm) == MPI_SUCCESS && yes == 1;
}

MpiWorld::MpiWorld(CommOptions options) : options_(std::move(options)) {
  mpi_was_started = true;
  int provided = 0;
  MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &provided);
  if (provided < MPI_THREAD_MULTIPLE)
    throw Error(Exit::config, "E_MPI_THREADS", "this MPI library lacks MPI_THREAD_MULTIPLE");
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  int size = 1;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  // A launcher of another MPI, or srun without PMI support, starts ranks that don't know of each other.
  if (const auto e = launcher_environment(); e.present && e.size != size) {
    MPI_Finalize();
    throw Error(Exit::disagree, "E_MPI_LAUNCHER",
                fmt::format("the launcher started {} ranks, but MPI sees {}", e.size, size))
        .hint("start the ranks with Open MPI's own mpirun, or with srun --mpi=pmix");
  }
  one_host_ = launcher_environment().local_size == size;
  roll_.emplace();
  if (!one_host_ && launcher_environment().local_rank == 0) {
    roll_->ask(standing());
    probe_until_ = Trace::now_ns() + kProbe;
  }
  watchdog_ = std::thread([this] { watch(); });
  std::vector<std::string> hosts = gather_hosts();
  const std::lock_guard lock(mutex_);
  hosts_ = std::move(hosts);
}

std::vector<std::string> MpiWorld::gather_hosts() {
  Guard guard(*this, 0, "meeting the other ranks");
  std::array<char, 64> mine{};
  host_name().copy(mine.data(), mine.size() - 1);
  std::vector<std::array<char, 64>> all(static_cast<size_t>(roll_->size()));
  check(MPI_Allgather(mine.data(), mine.size(), MPI_BYTE, all.data(), mine.size(), MPI_BYTE, MPI_COMM_WORLD),
        "meeting the other ranks");
  std::vector<std::string> hosts;
  for (const auto& host : all) hosts.emplace_back(host.data());
  return hosts;
}

MpiWorld::~MpiWorld() {
  {
    const std::lock_guard lock(mutex_);
    roll_.reset();
  }
  {
    Guard guard(*this, 0, "finalize");
    MPI_Finalize();
  }
  {
    const std::lock_guard lock(mutex_);
    done_ = true;
  }
  wake_.notify_all();
  watchdog_.join();
}

MpiWorld::Guard::Guard(MpiWorld& world, int communicator, const char* what) {
  const bool counted = communicator < kCountedCommunicators;
  const uint32_t number = counted ? ++world.begun_[static_cast<size_t>(communicator)] : 0;
  for (auto& s : world.slots_) {
    int64_t idle = 0;
    if (!s.since.compare_exchange_strong(idle, Trace::now_ns())) continue;
    slot_ = &s;
    s.what = what, s.communicator = communicator, s.number = number;
    return;
  }
}

void MpiWorld::check(int code, const char* what) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = "";
  int length = 0;
  MPI_Error_string(code, text, &length);
  {
    const std::lock_guard lock(mutex_);
    failed_call_ = fmt::format("{} failed: {}", what, text);
  }
  for (;;) ::pause();  // the watchdog asks who is gone, and ends this process
}

MPI_Comm MpiWorld::duplicate(MPI_Comm comm) {
  MPI_Comm copy = MPI_COMM_NULL;
  check(MPI_Comm_dup(comm, &copy), "duplicate");
  return copy;
}

void MpiWorld::allreduce(MPI_Comm comm, void* data, int64_t count, MPI_Datatype type, int64_t size,
                         MPI_Op op) {
  for (int64_t at = 0; at < count; at += kMpiChunk) {
    const auto n = static_cast<int>(std::min(kMpiChunk, count - at));
    check(MPI_Allreduce(MPI_IN_PLACE, static_cast<std::byte*>(data) + at * size, n, type, op, comm),
          "allreduce");
  }
}

void MpiWorld::leave(const Error& error) {
  const std::lock_guard lock(mutex_);
  if (roll_) part(error);
}

// Messages on their way need MPI to be called.
void MpiWorld::part(const Error& error) {
  roll_->say_farewell(error);
  for (int i = 0; i < 5; ++i) {
    std::this_thread::sleep_for(20ms);
    roll_->serve(standing());
  }
}

void MpiWorld::watch() {
  std::unique_lock lock(mutex_);
  int64_t last = Trace::now_ns();
  while (!wake_.wait_for(lock, kLook, [&] { return done_; })) {
    const int64_t now = Trace::now_ns();
    if (now - last > kStopped) forgive(now - last);
    last = now;
    if (roll_) {
      roll_->serve(standing());
      if (roll_->farewell()) end({*roll_->farewell(), true});
      probe(now);
    }
    remark_on_own_work(now);
    inquire(now);
  }
}

// Of the time that this process did not run its peers knew nothing: it is they who may have waited.
void MpiWorld::forgive(int64_t nanoseconds) {
  for (auto& s : slots_)
    if (int64_t since = s.since; since != 0) s.since.compare_exchange_strong(since, since + nanoseconds);
  inquiry_ = {};
}

Standing MpiWorld::standing() const {
  Standing mine;
  const int64_t now = Trace::now_ns();
  for (size_t c = 0; c < begun_.size(); ++c) mine.begun[c] = begun_[c];
  const Whereabouts& here = whereabouts();
  const std::string node = here.doing.load();
  std::string at = node.empty() ? "between steps" : node;
  if (const int64_t since = here.own_work_since) {
    mine.own_work_ns = std::max<int64_t>(1, now - since);
    at = here.own_work.load();
  }
  for (const auto& s : slots_)
    if (const int64_t since = s.since; since != 0 && now - since > kSecond) {
      mine.waits = 1;
      at = describe(s);
    }
  at.copy(mine.at.data(), mine.at.size() - 1);
  return mine;
}

// Buckets are called by their node; of what the step's own thread waits for, the node is known.
std::string MpiWorld::describe(const Slot& slot) const {
  const std::string what = slot.what.load(), node = whereabouts().doing.load();
  const bool bucket = what.starts_with("allreduce ");
  return bucket || node.empty() ? what : fmt::format("{} of {}", what, node);
}

const MpiWorld::Slot* MpiWorld::overdue(int64_t now) const {
  const Slot* longest = nullptr;
  int64_t begin = now - deadline_ns();
  for (const auto& s : slots_)
    if (const int64_t since = s.since; since != 0 && since < begin) longest = &s, begin = since;
  return longest;
}

// Where a network lies between the hosts that does not join them, this is found out long before the deadline.
void MpiWorld::probe(int64_t now) {
  if (probe_until_ == 0) return;
  std::vector<int> silent;
  for (int r = 0; r < roll_->size(); ++r)
    if (!roll_->answer(r)) silent.push_back(r);
  if (!silent.empty() && inquiry_.asked == 0 && now < probe_until_) return;
  probe_until_ = 0;
  if (silent.empty() || inquiry_.asked != 0) return;
  Error e(Exit::unavailable, "E_UNREACHABLE",
          fmt::format("rank {} on {} has had no answer from {} within {} s", roll_->rank(), host_name(),
                      named(silent), kProbe / kSecond));
  e.set_hint(
      "the hosts may have a network in common that does not join them (docker0): network_interface "
      "says which does, by name or subnet");
  lost(e);
}

void MpiWorld::remark_on_own_work(int64_t now) {
  const Whereabouts& here = whereabouts();
  const int64_t since = here.own_work_since;
  if (since == 0) {
    own_work_noted_ = 0;
    return;
  }
  if (now - std::max(since, own_work_noted_) < std::max(deadline_ns(), kSecond)) return;
  own_work_noted_ = now;
  spdlog::warn(
      "{} takes long: {:.0f} s so far, {:.1f} MB written since the start; the other ranks wait for {} s",
      here.own_work.load(), seconds(now - since), static_cast<double>(here.bytes_written) * 1e-6,
      std::max(options_.own_work_seconds, options_.deadline_seconds));
}

void MpiWorld::inquire(int64_t now) {
  const Slot* slot = overdue(now);
  if (!slot && failed_call_.empty()) {
    inquiry_ = {};
    return;
  }
  const int64_t call = slot ? slot->since.load() : 0;
  if (!roll_)
    lost(peer_lost(slot ? fmt::format("{} has waited for its peers for more than {} s", describe(*slot),
                                      options_.deadline_seconds)
                        : failed_call_));
  if (inquiry_.asked == 0 || inquiry_.slot != slot || inquiry_.call != call || now > inquiry_.until) {
    inquiry_ = {slot, call, now, now + kAnswer + kAgain};
    roll_->ask(standing());
    return;
  }
  if (inquiry_.judged || (!roll_->all_have_answered() && now - inquiry_.asked < kAnswer)) return;
  inquiry_.judged = true;
  if (const auto error = verdict(slot, now); error && (!slot || slot->since == call)) lost(*error);
}

std::string MpiWorld::named(const std::vector<int>& ranks) const {
  constexpr size_t kMost = 8;
  std::vector<std::string> names;
  for (size_t i = 0; i < std::min(ranks.size(), kMost); ++i) {
    const auto r = static_cast<size_t>(ranks[i]);
    names.push_back(r < hosts_.size() ? fmt::format("rank {} on {}", r, hosts_[r])
                                      : fmt::format("rank {}", r));
  }
  if (ranks.size() > kMost) names.push_back(fmt::format("{} more", ranks.size() - kMost));
  return fmt::format("{}", fmt::join(names, ", "));
}

std::optional<Error> MpiWorld::verdict(const Slot* slot, int64_t now) const {
  std::vector<int> silent, late, working, waiting;
  for (int r = 0; r < roll_->size(); ++r) {
    const auto& a = roll_->answer(r);
    const int c = slot ? slot->communicator.load() : kCountedCommunicators;
    if (!a)
      silent.push_back(r);
    else if (c < kCountedCommunicators &&
             static_cast<int32_t>(a->begun[static_cast<size_t>(c)] - slot->number) < 0)
      (a->waits != 0 ? waiting : a->own_work_ns > 0 ? working : late).push_back(r);
  }
  const std::string op = slot ? describe(*slot) : failed_call_;
  const int64_t waited = slot ? now - slot->since : 0;
  const auto blame = [&](const std::vector<int>& ranks, const std::string& what) {
    Error e = peer_lost(named(ranks) + " " + what);
    const int r = ranks.front();
    e.add_place("rank", std::to_string(r));
    if (static_cast<size_t>(r) < hosts_.size()) e.add_place("host", hosts_[static_cast<size_t>(r)]);
    e.add_place("op", op);
    return e;
  };
  const auto missed = [&](const std::vector<int>& ranks) {
    return fmt::format("{} not come to {}, where rank {} has waited for {:.1f} s; it is at {}",
                       ranks.size() == 1 ? "has" : "have", op, roll_->rank(), seconds(waited),
                       roll_->answer(ranks.front())->at.data());
  };
  if (!silent.empty())
    return blame(
        silent, slot
                    ? fmt::format("{} not answer: stopped, or cut off; rank {} has waited in {} for {:.1f} s",
                                  silent.size() == 1 ? "does" : "do", roll_->rank(), op, seconds(waited))
                    : fmt::format("{} not answer; {}", silent.size() == 1 ? "does" : "do", failed_call_));
  if (!slot) return peer_lost(failed_call_);
  if (!late.empty()) return blame(late, missed(late));
  if (!working.empty()) {
    if (static_cast<double>(waited) < std::max(options_.own_work_seconds, options_.deadline_seconds) * 1e9)
      return std::nullopt;
    return blame(working, missed(working));
  }
  if (waited < deadline_ns() + kUnderWay) return std::nullopt;
  if (!waiting.empty()) return blame(waiting, missed(waiting));
  Error e = peer_lost(
      fmt::format("all ranks have come to {}, and it has not ended for {:.1f} s", op, seconds(waited)));
  e.add_place("op", op);
  e.set_hint("look at the network between the hosts");
  return e;
}

// Of the ranks that find it out the lowest one tells it; the others give it time to.
void MpiWorld::lost(const Error& error) {
  bool lowest = true;
  for (int r = 0; roll_ && r < roll_->rank(); ++r)
    lowest &= !roll_->answer(r) || roll_->answer(r)->waits == 0;
  for (int i = 0; !lowest && i < 15; ++i) {
    std::this_thread::sleep_for(kLook);
    roll_->serve(standing());
    if (roll_->farewell()) end({*roll_->farewell(), true});
  }
  end({error, false});
}

void MpiWorld::end(const LostPeer& lost) {
  if (options_.on_peer_lost)
    options_.on_peer_lost(lost);
  else if (!lost.told)
    say(stderr, lost.error.what() + std::string("\n"));
  std::fflush(nullptr);
  if (!lost.told && roll_) part(lost.error);
  if (lost.told) std::this_thread::sleep_for(300ms);  // the first to leave is the one that mpirun names
  ::_exit(lost.error.code());
}

}  // namespace lockstep

#ifdef __SANITIZE_ADDRESS__
// Open MPI leaves memory behind that its plugins allocated, and has unloaded them when leaks are looked for,
// so that no suppression can name them.
extern "C" int __lsan_is_turned_off() { return lockstep::mpi_was_started; }
#endif
