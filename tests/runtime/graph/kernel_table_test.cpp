// SPDX-License-Identifier: Apache-2.0
// Which kernel runs what: signatures, the cache, kernels pinned by a checkpoint; and that graph and registry
// know the same ops.
#include <fcntl.h>
#include <gtest/gtest.h>

#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "kernels/linear/linear.h"
#include "kernels/timestep_embedding/timestep_embedding.h"
#include "models/objectives/classification.h"
#include "runtime/files/file_lock.h"
#include "runtime/graph/op.h"
#include "runtime/training/session.h"
#include "tests/runtime/graph/nets.h"
#include "tests/support/files.h"
#include "tests/support/temporary_folder.h"

namespace lockstep::testing {
namespace {

Net net_called(const std::string& name) {
  for (const Net& n : nets())
    if (n.name == name) return n;
  throw std::runtime_error(name);
}

TEST(KernelSignature, HasEverythingButTheBatch) {
  for (const Net& net : nets()) {
    const Graph a = training_graph(net, 3, true), b = training_graph(net, 64, true);
    ASSERT_EQ(a.nodes().size(), b.nodes().size());
    for (size_t i = 0; i < a.nodes().size(); ++i)
      EXPECT_EQ(kernel_signature(a, a.nodes()[i]), kernel_signature(b, b.nodes()[i]));
  }
  auto signature = [](int64_t channels, int64_t side, int64_t stride, Layout layout) {
    Graph g;
    GraphBuilder b(g);
    Layers{b, kNoValue}.conv("c", b.input("x", {DType::f32, {4, channels, side, side}, layout}, true), 4, 3,
                             0, stride);
    return kernel_signature(g, g.nodes()[0]);
  };
  const std::string base = signature(3, 8, 1, Layout::plain);
  EXPECT_NE(base, signature(2, 8, 1, Layout::plain));
  EXPECT_NE(base, signature(3, 9, 1, Layout::plain));
  EXPECT_NE(base, signature(3, 8, 2, Layout::plain));
  EXPECT_NE(base, signature(3, 8, 1, Layout::lanes));
}

// In fp32 every node of a model that is asked has a kernel whose bits depend on nothing else. With two threads:
// what does not depend on their number is asked for.
TEST(IndependentKernels, AreThereForEveryForwardNode) {
  KernelChoice how{Device::cpu, 2, "test", ""};
  how.independent = true;
  for (const Net& net : nets()) {
    Graph g = training_graph(net, 4, true);
    std::erase_if(g.nodes(), [](const Node& n) { return n.backward; });
    KernelTable table;
    choose_first_kernels(table, g, how);
    for (const Node& n : g.nodes()) {
      // Those of training alone, which are sums over the batch.
      if (n.kind != NodeKind::compute || n.op == "cross_entropy" || n.op.starts_with("batch_norm_")) continue;
      const KernelInfo* k =
          Registry::builtin().find(n.op, table.at(kernel_signature(g, n)), Device::cpu, DType::f32);
      ASSERT_TRUE(k) << n.op;
      EXPECT_TRUE(k->bit_exact.threads && k->bit_exact.shard) << n.op << " " << k->name;
      EXPECT_FALSE(k->is_reference() && n.op != "reorder")
          << kernel_signature(g, n) << " has the reference alone";
    }
  }
}

// What shares a batch, how many threads there are and what else the machine does decide nothing.
TEST(IndependentKernels, AreChosenByShapesAlone) {
  const auto comm = make_self_communicator();
  const auto chosen = [&](const Net& net, int64_t batch, int threads) {
    Graph g = training_graph(net, batch, true);
    std::erase_if(g.nodes(), [](const Node& n) { return n.backward || n.op == "cross_entropy"; });
    KernelChoice how{Device::cpu, threads, "test", ""};
    how.independent = true;
    KernelTable first, table;
    choose_first_kernels(first, g, how);
    choose_kernels(table, g, how, *comm);
    EXPECT_EQ(table, first);
    return table;
  };
  for (const Net& net : nets()) EXPECT_EQ(chosen(net, 1, 1), chosen(net, 17, 3));
}

TEST(IndependentKernels, OfLargeLinearLayersAreGemm) {
  const auto kernel_of = [](int64_t features) {
    Graph g;
    GraphBuilder b(g);
    b.set_scope("fc");
    const ValueId x = b.input("x", {DType::f32, {4, features}, Layout::plain}, true);
    b.add1("linear", LinearParams{}, {x, b.parameter("fc.weight", {features, features}, Init{})});
    KernelChoice how{Device::cpu, 2, "test", ""};
    how.independent = true;
    KernelTable table;
    choose_first_kernels(table, g, how);
    return table.begin()->second;
  };
  EXPECT_EQ(kernel_of(64), "highway");
  EXPECT_EQ(kernel_of(768), "gemm");
}

// Waking threads for little work takes longer than the work. Where bits may depend on the threads, all are used.
TEST(PlanThreads, AreOneWhereLittleIsAsked) {
  const auto threads_of = [](int64_t features, bool independent) {
    Graph g;
    GraphBuilder b(g);
    b.set_scope("fc");
    const ValueId x = b.input("x", {DType::f32, {4, features}, Layout::plain}, true);
    const ValueId w = b.parameter("fc.weight", {features, features}, Init{});
    g.value(b.add1("linear", LinearParams{}, {x, w})).storage = Storage::output;
    KernelChoice how{Device::cpu, 3, "test", ""};
    how.independent = independent;
    KernelTable table;
    return compile(std::move(g), table, how,
                   [&](KernelTable& t, const Graph& graph) { choose_first_kernels(t, graph, how); })
        .threads;
  };
  EXPECT_EQ(threads_of(64, true), 1);
  EXPECT_EQ(threads_of(64, false), 3);
  EXPECT_EQ(threads_of(4096, true), 3);
}

// Said at once, and not after candidates were tried: 2^43 bytes, more than any machine has.
TEST(KernelTimes, AreNotTakenOfWhatNoMachineHolds) {
  Graph g;
  GraphBuilder b(g);
  b.set_scope("act");
  b.elementwise(Elt::relu, {b.input("x", {DType::f32, {1, int64_t{1} << 40}, Layout::plain}, true)});
  KernelTable table;
  const auto comm = make_self_communicator();
  const auto error = error_of([&] { choose_kernels(table, g, {.threads = 1, .processor = "test"}, *comm); });
  ASSERT_TRUE(error);
  EXPECT_EQ(error->id(), "E_TOO_LARGE");
  for (const char* word : {"layer=act", "elementwise of", "[1, 1099511627776]", "takes 8796.1 GB"})
    EXPECT_NE(std::string(error->what()).find(word), std::string::npos) << error->what();
}

TEST(GraphSize, HasABound) {
  Graph g;
  GraphBuilder b(g);
  ValueId x = b.input("x", {DType::f32, {1, 1}, Layout::plain}, true);
  b.set_scope("deep");
  const auto error = error_of([&] {
    for (int i = 0; i < 1 << 20; ++i) x = b.elementwise(Elt::relu, {x});
  });
  ASSERT_TRUE(error);
  EXPECT_EQ(error->id(), "E_TOO_LARGE");
  EXPECT_NE(std::string(error->what()).find("layer=deep"), std::string::npos) << error->what();
}

class CacheTest : public ::testing::Test {
 protected:
  KernelTable choose(const KernelChoice& how) const {
    KernelTable table;
    choose_kernels(table, graph_, how, *comm_);
    return table;
  }
  KernelChoice how() const { return {Device::cpu, 1, "test", file_}; }

  TestFolder folder_;
  const std::string file_ = folder_.file("below/kernels.json");
  const Graph graph_ = training_graph(net_called("relu_max_pool"), 8, true);
  const std::unique_ptr<Communicator> comm_ = make_self_communicator();
};

TEST_F(CacheTest, SecondChoiceIsTheRememberedOne) {
  const KernelTable first = choose(how());
  ASSERT_FALSE(first.empty());
  auto cache = nlohmann::json::parse(read_file(file_));
  EXPECT_EQ(cache.size(), first.size());
  // No timing ever chooses the reference where something faster accepts: a planted one shows who decided.
  std::string planted;
  for (auto& [key, kernel] : cache.items())
    if (const size_t at = key.find(" max_pool2d("); at != std::string::npos)
      planted = key.substr(at + 1), kernel = "reference";
  ASSERT_FALSE(planted.empty());
  write_file(file_, cache.dump());
  const KernelTable second = choose(how());
  EXPECT_NE(first.at(planted), "reference");
  EXPECT_EQ(second.at(planted), "reference");
  KernelTable third = first;
  third.at(planted) = "reference";
  EXPECT_EQ(second, third);
  // Another processor, other threads: timings of their own.
  KernelChoice other = how();
  other.processor = "another";
  EXPECT_NE(choose(other).at(planted), "reference");
  other = how();
  other.threads = 2;
  EXPECT_NE(choose(other).at(planted), "reference");
}

// Neither read nor written where shapes decide: what another build has left there would be other bits.
TEST_F(CacheTest, IsNoneOfKernelsThatShapesChoose) {
  Graph g = graph_;
  std::erase_if(g.nodes(), [](const Node& n) { return n.backward || n.op == "cross_entropy"; });
  KernelChoice independent = how();
  independent.independent = true;
  KernelTable table;
  choose_kernels(table, g, independent, *comm_);
  EXPECT_FALSE(table.empty());
  EXPECT_FALSE(std::filesystem::exists(file_));
}

TEST_F(CacheTest, DamagedCacheIsMadeAnew) {
  const KernelTable expected = choose({Device::cpu, 1, "test", ""});
  for (const std::string& damage : {std::string(), std::string("{"), std::string("[1, 2]"),
                                    std::string("null"), std::string("\0\xff", 2)}) {
    choose(how());
    write_file(file_, damage);
    const KernelTable found = choose(how());
    EXPECT_EQ(found.size(), expected.size());
    const auto cache = nlohmann::json::parse(read_file(file_));
    EXPECT_EQ(cache.size(), expected.size()) << "not written anew after: " << damage;
  }
  // Names that are no kernel's, no string, or a kernel of this op that does not take these shapes.
  for (const nlohmann::json& value :
       {nlohmann::json("no such kernel"), nlohmann::json(7), nlohmann::json("nhwc")}) {
    auto cache = nlohmann::json::parse(read_file(file_));
    for (auto& [key, kernel] : cache.items()) kernel = value;
    write_file(file_, cache.dump());
    const KernelTable found = choose(how());
    for (const auto& [signature, kernel] : found) EXPECT_NE(nlohmann::json(kernel), value) << signature;
    KernelTable table = found;
    EXPECT_NO_THROW(compile(graph_, table, how(),
                            [&](KernelTable& t, const Graph& g) { choose_kernels(t, g, how(), *comm_); }));
  }
}

TEST_F(CacheTest, KernelsThatDoNotTakeTheShapesAreNotTakenFromIt) {
  choose(how());
  auto cache = nlohmann::json::parse(read_file(file_));
  int planted = 0;
  // Every other kernel of the op, whatever layout it is for.
  for (const Node& n : graph_.nodes())
    for (const KernelInfo& k : Registry::builtin().all())
      if (k.op == n.op) {
        for (auto& [key, kernel] : cache.items())
          if (key.ends_with(" " + kernel_signature(graph_, n))) kernel = k.name, ++planted;
        write_file(file_, cache.dump());
        KernelTable table;
        EXPECT_NO_THROW(compile(graph_, table, how(),
                                [&](KernelTable& t, const Graph& g) { choose_kernels(t, g, how(), *comm_); }))
            << k.op << " " << k.name;
      }
  EXPECT_GT(planted, 0);
}

TEST_F(CacheTest, UnwritableCacheIsNoReasonToStop) {
  KernelChoice h = how();
  h.cache_file = "/proc/no/such/place/kernels.json";
  EXPECT_EQ(choose(h).size(), choose({Device::cpu, 1, "test", ""}).size());
}

// While another job chooses, which holds the lock, this one waits: both choices are in the cache then.
TEST_F(CacheTest, JobsThatChooseAtTheSameTimeKeepEachOthersChoices) {
  std::filesystem::create_directories(folder_.file("below"));
  const int lock = ::open((file_ + ".lock").c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0666);
  ASSERT_EQ(::flock(lock, LOCK_EX), 0);
  size_t chosen = 0;
  std::thread job([&] { chosen = choose(how()).size(); });
  std::this_thread::sleep_for(std::chrono::milliseconds(300));  // enough to choose, were it not for the lock
  write_file(file_, R"({"another's node": "simd"})");
  ::close(lock);
  job.join();
  EXPECT_GT(chosen, 0u);
  EXPECT_EQ(nlohmann::json::parse(read_file(file_)).size(), chosen + 1);
}

int without_flock(int /*descriptor*/, int /*operation*/) {
  errno = ENOLCK;
  return -1;
}

// The same where the file system has no flock: a file beside it is the lock, which a dead job has left here.
TEST_F(CacheTest, IsLockedByAFileWhereThereIsNoFlock) {
  std::filesystem::create_directories(folder_.file("below"));
  char host[256] = {};
  ::gethostname(host, sizeof host - 1);
  const auto holds = [&](pid_t pid) {
    write_file(file_ + ".lock.held", fmt::format("pid {} on {}\n", pid, host));
  };
  const pid_t dead = ::fork();
  if (dead == 0) ::_exit(0);
  ::waitpid(dead, nullptr, 0);
  lock_call = without_flock;
  holds(dead);
  const size_t chosen = choose(how()).size();
  EXPECT_EQ(nlohmann::json::parse(read_file(file_)).size(), chosen);
  EXPECT_FALSE(std::filesystem::exists(file_ + ".lock.held"));

  std::filesystem::remove(file_);
  holds(::getpid());  // another job chooses
  std::thread job([&] { EXPECT_EQ(choose(how()).size(), chosen); });
  std::this_thread::sleep_for(std::chrono::milliseconds(300));  // enough to choose, were it not for the lock
  write_file(file_, R"({"another's node": "simd"})");
  std::filesystem::remove(file_ + ".lock.held");
  job.join();
  lock_call = ::flock;
  EXPECT_EQ(nlohmann::json::parse(read_file(file_)).size(), chosen + 1);
  EXPECT_FALSE(std::filesystem::exists(file_ + ".lock.held"));
}

// The host's memory, that gives none to some candidates' workspaces.
class ShortOfMemory final : public DeviceRuntime {
 public:
  // `tensors`: what is allocated for a node's inputs and outputs before that; `refuses` is asked for the
  // number of the candidate, and last for what those that stand share.
  ShortOfMemory(int tensors, std::function<bool(int)> refuses, bool lost = false)
      : tensors_(tensors), refuses_(std::move(refuses)), lost_(lost) {}
  Device device() const override { return Device::cpu; }
  std::string name() const override { return "test"; }
  bool shares_host_memory() const override { return true; }
  void* allocate(int64_t bytes) override {
    if (++allocated_ > tensors_ && refuses_(allocated_ - tensors_ - 1))
      throw Error(Exit::io, "E_MEMORY",
                  fmt::format("no workspace for candidate {}", allocated_ - tensors_ - 1));
    return host_->allocate(bytes);
  }
  void release(void* memory) noexcept override { host_->release(memory); }
  void* allocate_host(int64_t bytes) override { return host_->allocate_host(bytes); }
  void release_host(void* memory) noexcept override { host_->release_host(memory); }
  void copy_to_device(void* to, const void* from, int64_t n) override { host_->copy_to_device(to, from, n); }
  void copy_to_host(void* to, const void* from, int64_t n) override { host_->copy_to_host(to, from, n); }
  void copy_on_device(void* to, const void* from, int64_t n) override { host_->copy_on_device(to, from, n); }
  void synchronize() override {}
  void* stream() const override { return nullptr; }
  std::unique_ptr<Upload> make_upload(void*, int64_t) override { return nullptr; }
  std::unique_ptr<Download> make_download(std::vector<Piece>) override { return nullptr; }
  bool can_record() const override { return false; }
  void begin_recording() override {}
  std::unique_ptr<Recording> end_recording() override { return nullptr; }
  void recover() override {
    ++recovered;
    if (lost_) throw Error(Exit::internal, "E_CUDA", "an illegal memory access");
  }
  int allocated() const { return allocated_; }
  int recovered = 0;

 private:
  std::unique_ptr<DeviceRuntime> host_ = make_host_runtime(Device::cpu);
  int tensors_, allocated_ = 0;
  std::function<bool(int)> refuses_;
  bool lost_;
};

class FailingCandidates : public ::testing::Test {
 protected:
  FailingCandidates() {
    GraphBuilder b(graph_);
    const ValueId x = b.input("x", {DType::f32, {4, 16, 8, 8}, Layout::nhwc}, true);
    Layers{b, kNoValue}.conv("first", x, 16, 3, 1, 1);
    tensors_ = static_cast<int>(graph_.nodes()[0].in.size() + graph_.nodes()[0].out.size());
  }
  KernelTable choose(ShortOfMemory& device) const {
    KernelTable table;
    choose_kernels(table, graph_, {.threads = 1, .processor = "test", .runtime = &device}, *comm_);
    return table;
  }
  std::string chosen(ShortOfMemory& device) const {
    return choose(device).at(kernel_signature(graph_, graph_.nodes()[0]));
  }

  Graph graph_;
  int tensors_ = 0;
  const std::unique_ptr<Communicator> comm_ = make_self_communicator();
};

TEST_F(FailingCandidates, AreOutOfTheRace) {
  ShortOfMemory enough(tensors_, [](int) { return false; });
  choose(enough);
  const int candidates = enough.allocated() - tensors_ - 1;  // the last is what they share
  ASSERT_GE(candidates, 2);
  std::set<std::string> winners;
  for (int standing : {0, 1}) {
    ShortOfMemory device(tensors_, [=](int i) { return i != standing && i < candidates; });
    winners.insert(chosen(device));
    EXPECT_GT(device.recovered, 0);
  }
  EXPECT_EQ(winners.size(), 2u) << "each time the one that works";
}

TEST_F(FailingCandidates, AreAnErrorOnlyTogether) {
  ShortOfMemory device(tensors_, [](int) { return true; });
  expect_error(
      Exit::internal, [&] { choose(device); }, "E_KERNELS_FAIL", "conv2d", "f32[4, 16, 8, 8]:nhwc",
      "layer=first", "no workspace for candidate 0", "no workspace for candidate 1");
  EXPECT_GT(device.recovered, 1);
}

TEST_F(FailingCandidates, WithALostDeviceEndTheJob) {
  ShortOfMemory device(
      tensors_, [](int candidate) { return candidate == 1; }, true);
  expect_error(
      Exit::internal, [&] { choose(device); }, "E_CUDA", "an illegal memory access", "op=conv2d",
      "kernel=", "no workspace for candidate 1");
}

SessionOptions session_options() {
  SessionOptions o;
  o.objective = classification(
      [](ModelContext& c, ValueId x) {
        return net_called("relu_max_pool").build(Layers{c.builder, c.step_state}, x);
      },
      {kChannels, kSide, kSide, kClasses, {0, 0, 0}, {1, 1, 1}}, o.config);
  o.config.global_batch_size = 8;
  o.kernels = {Device::cpu, 1, "test", ""};
  return o;
}

TEST(PinnedKernels, UnknownOneStopsUnlessRetuned) {
  const auto comm = make_self_communicator();
  Session fresh(session_options(), *comm);
  fresh.prepare_training(8);
  auto pinned = fresh.kernel_table();
  std::string lost;
  for (auto& [signature, kernel] : pinned)
    if (lost.empty() && signature.starts_with("conv2d(")) lost = signature, kernel = "of_another_build";
  ASSERT_FALSE(lost.empty());

  SessionOptions o = session_options();
  o.pinned = pinned;
  Session strict(o, *comm);
  expect_error(
      Exit::config, [&] { strict.prepare_training(8); }, "E_KERNEL_PINNED", "of_another_build", lost,
      "--retune");

  o.retune = true;
  Session retuned(o, *comm);
  retuned.prepare_training(8);
  EXPECT_TRUE(retuned.retuned());
  EXPECT_NE(retuned.kernel_table().at(lost), "of_another_build");
  pinned.at(lost) = retuned.kernel_table().at(lost);
  EXPECT_EQ(retuned.kernel_table(), pinned) << "the others stay";
}

TEST(PinnedKernels, AreTakenWithoutChoosing) {
  const auto comm = make_self_communicator();
  Session fresh(session_options(), *comm);
  fresh.prepare_training(8);
  SessionOptions o = session_options();
  o.pinned = fresh.kernel_table();
  for (auto& [signature, kernel] : o.pinned) kernel = "reference";  // what no timing would choose
  Session session(o, *comm);
  session.prepare_training(8);
  EXPECT_FALSE(session.retuned());
  EXPECT_EQ(session.kernel_table(), o.pinned);
}

// An op is known to the graph and has kernels, a reference among them, or it is not there at all.
TEST(Ops, GraphAndRegistryKnowTheSame) {
  std::set<std::string> graph, kernels, references;
  for (const auto& name : op_names()) graph.insert(name);
  for (const KernelInfo& k : Registry::builtin().all()) {
    kernels.insert(k.op);
    if (k.is_reference()) references.insert(k.op);
  }
  EXPECT_EQ(graph, kernels);
  EXPECT_EQ(graph, references);
}

// Everything a model can put into its forward part has a shape rule, and a gradient rule or stands here with
// a reason.
TEST(Ops, ForwardOpsHaveShapeAndGradientRules) {
  const std::map<std::string, std::string> no_shape_rule = {
      {"batch_norm_running", "its outputs are buffers that exist"},
      {"reorder", "its output is the input in another layout"},
      {"cast", "its output is the input in another type"},
      {"grad_norm", "made with the optimizer"},
      {"optimizer_step", "made with the optimizer"},
      {"batch_norm_grad_sums", "a gradient"},
  };
  const std::map<std::string, std::string> no_gradient = {
      {"image_augment", "whole numbers"},
      {"image_normalize", "nobody wants the image's"},
      {"timestep_embedding", "nobody wants that of a time"},
      {"batch_norm_running", "leads to buffers only"},
      {"batch_norm_eval", "not in a training graph"},
      {"cast", "put between nodes when the gradients are there"},
      {"cross_entropy", "seeded by cross_entropy_grad"},
      {"weighted_mse", "seeded by weighted_mse_grad"},
      {"diffusion_noise", "nobody wants the image's"},
      {"label_dropout", "labels are whole numbers"},
      {"posterior_sample", "the moments are a frozen network's"},
      {"grad_norm", "after the gradients"},
      {"optimizer_step", "after the gradients"},
      {"batch_norm_grad_sums", "a gradient"},
  };
  for (const auto& name : op_names()) {
    const OpDef& op = op_def(name);
    const bool gradient_op = name.ends_with("_grad");
    EXPECT_EQ(op.infer == nullptr, gradient_op || no_shape_rule.contains(name)) << name;
    EXPECT_EQ(op.gradient == nullptr, gradient_op || no_gradient.contains(name)) << name;
  }
  for (const auto* list : {&no_shape_rule, &no_gradient})
    for (const auto& [name, why] : *list) EXPECT_EQ(op_def(name).name, name) << why;
}

// What does not fit is refused when the graph is built, with the shapes.
TEST(Ops, ShapesThatDontFitAreNamed) {
  Graph g;
  GraphBuilder b(g);
  const auto value = [&](Shape s, DType type = DType::f32) {
    return b.input("v", {type, s, Layout::plain}, true);
  };
  const ValueId image = value({2, 4, 8, 8}), other = value({2, 3, 8, 7}), features = value({2, 4});
  const ValueId ids = value({2}, DType::i32), table = b.parameter("table", {5, 4}, {});
  struct Bad {
    std::string op;
    Params params;
    std::vector<ValueId> in;
    std::string says;
  };
  for (const Bad& bad :
       std::vector<Bad>{{"upsample_nearest2d", UpsampleNearest2dParams{}, {features}, "[2, 4]"},
                        {"upsample_nearest2d", UpsampleNearest2dParams{0, 2}, {image}, "0x2"},
                        {"concat", NoParams{}, {image, other}, "[2, 4, 8, 8] and [2, 3, 8, 7]"},
                        {"slice_channels", SliceChannelsParams{2, 3}, {image}, "no channels 2 to 4"},
                        {"scale_shift", NoParams{}, {other, features}, "[2, 3, 8, 7] and [2, 4]"},
                        {"embedding", NoParams{}, {table, features}, "f32[2, 4]"},
                        {"timestep_embedding", TimestepEmbeddingParams{.dim = 2}, {ids}, "half of 2"},
                        {"timestep_embedding", TimestepEmbeddingParams{.dim = 8}, {features}, "f32[2, 4]"}}) {
    try {
      b.add(bad.op, bad.params, bad.in);
      ADD_FAILURE() << bad.op << " took " << bad.says;
    } catch (const Error& e) {
      EXPECT_EQ(e.exit(), Exit::config) << bad.op;
      EXPECT_NE(std::string(e.what()).find(bad.says), std::string::npos) << e.what();
    }
  }
}

}  // namespace
}  // namespace lockstep::testing
