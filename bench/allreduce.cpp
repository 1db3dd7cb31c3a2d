// SPDX-License-Identifier: Apache-2.0
// The communicator's allreduce (sum of floats, in place) over a range of sizes, in the columns of nccl-tests:
//
//   mpirun -n 2 --mca pml ob1 --mca btl self,vader build/release/bench/allreduce --minimum 1K --maximum 64M
//   ... --by mpi     MPI_Allreduce in place, on memory of its own: what the communicator is compared with
//
// time: mean over the iterations, and the slowest rank's, of start and wait as a training step has them;
// every rank writes its gradients anew before each (not timed), so they are in its own caches as after a
// backward pass. algbw = size / time; busbw = algbw * 2 (n-1) / n, what each rank must at least send. #wrong:
// elements, over all ranks, that are not the sum worked out without communicating.
#include <fmt/format.h>
#include <mpi.h>

#include <boost/program_options.hpp>
#include <chrono>
#include <cstdio>
#include <functional>
#include <iostream>
#include <vector>

#include "bench/program.h"
#include "kernels/core/error.h"
#include "runtime/comm/communicator.h"
#include "runtime/device/cpu_topology.h"

using namespace lockstep;
namespace po = boost::program_options;

namespace {

int64_t bytes_of(const std::string& text) {
  size_t end = 0;
  int64_t n = 0;
  try {
    n = std::stoll(text, &end);
  } catch (const std::exception&) {
    end = 0;
  }
  const std::string unit = text.substr(end);
  const int shift = unit.empty() ? 0 : unit == "K" ? 10 : unit == "M" ? 20 : unit == "G" ? 30 : -1;
  if (end == 0 || n < 0 || shift < 0 || n > (int64_t{1} << 40 >> shift))
    throw Error(Exit::usage, "E_OPTION", fmt::format("'{}' is no size: a number and K, M or G", text));
  return n << shift;
}

float value(int rank, size_t i) { return static_cast<float>((static_cast<size_t>(rank) * 3 + i) % 7); }

struct Result {
  double seconds = 0;  // per allreduce
  int64_t wrong = 0;
};

using Allreduce = std::function<void(std::span<float>)>;

Result measure(Communicator& comm, const Allreduce& allreduce, std::span<float> data, int iterations,
               int warm_up) {
  double seconds = 0;
  for (int i = -warm_up; i < iterations; ++i) {
    for (size_t k = 0; k < data.size(); ++k) data[k] = value(comm.rank(), k);
    comm.barrier();
    const auto start = std::chrono::steady_clock::now();
    allreduce(data);
    if (i >= 0) seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }
  int64_t wrong = 0;
  for (size_t k = 0; k < data.size(); ++k) {
    float sum = 0;
    for (int r = 0; r < comm.size(); ++r) sum += value(r, k);
    wrong += data[k] != sum;
  }
  double slowest = seconds / iterations;
  comm.allreduce(std::span(&slowest, 1), Reduce::max);
  comm.allreduce(std::span(&wrong, 1), Reduce::sum);
  return {slowest, wrong};
}

int run(int argc, char** argv) {
  std::string minimum, maximum, by;
  int factor = 0, iterations = 0, warm_up = 0;
  po::options_description options("Options");
  options.add_options()("help,h", "this text")("minimum,b", po::value(&minimum)->default_value("1K"),
                                               "smallest size in bytes")(
      "maximum,e", po::value(&maximum)->default_value("64M"), "largest size")(
      "factor,f", po::value(&factor)->default_value(2), "from one size to the next")(
      "iterations,n", po::value(&iterations)->default_value(20), "timed allreduces of each size")(
      "warm-up,w", po::value(&warm_up)->default_value(5), "untimed ones before them")(
      "by", po::value(&by)->default_value("lockstep"), "lockstep, or mpi: MPI_Allreduce");
  po::variables_map vm;
  po::store(po::parse_command_line(argc, argv, options), vm);
  po::notify(vm);
  if (vm.count("help")) {
    std::cout << "mpirun -n RANKS allreduce [options]\n\n" << options;
    return 0;
  }
  const int64_t first = bytes_of(minimum), last = bytes_of(maximum);
  if (factor < 2 || iterations < 1 || warm_up < 0 || first < 4)
    throw Error(Exit::usage, "E_OPTION",
                "the factor is at least 2, the iterations 1, the warm-up 0, the smallest size 4");
  if (by != "lockstep" && by != "mpi")
    throw Error(Exit::usage, "E_OPTION", fmt::format("--by is lockstep or mpi, not '{}'", by));

  const auto environment = launcher_environment();
  auto comm = environment.present ? make_mpi_communicator({}) : make_self_communicator();
  if (by == "mpi" && !environment.present) throw Error(Exit::usage, "E_OPTION", "--by mpi needs mpirun");
  const bool root = comm->rank() == 0;
  Allreduce allreduce = [&](std::span<float> data) { comm->wait(comm->start_allreduce(data)); };
  if (by == "mpi")
    allreduce = [](std::span<float> data) {
      MPI_Allreduce(MPI_IN_PLACE, data.data(), static_cast<int>(data.size()), MPI_FLOAT, MPI_SUM,
                    MPI_COMM_WORLD);
    };
  if (root) {
    fmt::print("# {} ranks on {}, by {}\n", comm->size(), processor_name(), by);
    fmt::print("# {:>12} {:>12} {:>8} {:>6} {:>12} {:>8} {:>8} {:>7}\n", "size", "count", "type", "redop",
               "time", "algbw", "busbw", "#wrong");
    fmt::print("# {:>12} {:>12} {:>8} {:>6} {:>12} {:>8} {:>8} {:>7}\n", "(B)", "(elements)", "", "", "(us)",
               "(GB/s)", "(GB/s)", "");
  }
  int64_t wrong = 0;
  for (int64_t size = first; size <= last; size *= factor) {
    const AlignedBuffer memory = by == "mpi" ? AlignedBuffer(size) : comm->allocate(size);
    const std::span data(memory.as<float>(), static_cast<size_t>(size / 4));
    const Result r = measure(*comm, allreduce, data, iterations, warm_up);
    wrong += r.wrong;
    const double bandwidth = static_cast<double>(data.size() * 4) / r.seconds * 1e-9;
    if (root)
      fmt::print("  {:>12} {:>12} {:>8} {:>6} {:>12.2f} {:>8.2f} {:>8.2f} {:>7}\n", data.size() * 4,
                 data.size(), "float", "sum", r.seconds * 1e6, bandwidth,
                 bandwidth * 2 * (comm->size() - 1) / comm->size(), r.wrong);
    std::fflush(stdout);
  }
  return wrong == 0 ? 0 : static_cast<int>(Exit::internal);
}

}  // namespace

int main(int argc, char** argv) { return program("allreduce", run, argc, argv); }
