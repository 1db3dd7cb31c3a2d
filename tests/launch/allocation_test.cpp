// SPDX-License-Identifier: Apache-2.0
#include "launch/launcher/allocation.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "kernels/core/error.h"
#include "launch/launcher/mpirun.h"
#include "tests/support/files.h"
#include "tests/support/temporary_folder.h"

namespace lockstep::testing {
namespace {

using Names = std::vector<std::string>;

TEST(Allocation, ListsOfSlurm) {
  EXPECT_EQ(expand_nodes("node1"), Names{"node1"});
  EXPECT_EQ(expand_nodes("a,b-1.x"), (Names{"a", "b-1.x"}));
  EXPECT_EQ(expand_nodes("node[1-3,07],gpu1"), (Names{"node1", "node2", "node3", "node07", "gpu1"}));
  EXPECT_EQ(expand_nodes("n[08-11]"), (Names{"n08", "n09", "n10", "n11"}));
  EXPECT_EQ(expand_nodes("r[1-2]n[1,3]-ib"), (Names{"r1n1-ib", "r1n3-ib", "r2n1-ib", "r2n3-ib"}));
  for (const char* bad : {"", "a,,b", "a[1-3", "a]1[", "a[x]", "a[3-1]", "a[1-]", "a[]", "a[1-99999999999]"})
    EXPECT_EQ(expand_nodes(bad), Names{}) << bad;
}

class Allocations : public ::testing::Test {
 protected:
  void SetUp() override { clear(); }
  void TearDown() override { clear(); }
  static void clear() {
    for (const char* name :
         {"SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_JOB_NODELIST", "SLURM_NODELIST", "SLURM_TASKS_PER_NODE",
          "SLURM_JOB_CPUS_PER_NODE", "PBS_JOBID", "PBS_NODEFILE", "LSB_JOBID", "LSB_MCPU_HOSTS", "LSB_HOSTS"})
      ::unsetenv(name);
  }
  static void set(std::initializer_list<std::pair<const char*, std::string>> variables) {
    for (const auto& [name, value] : variables) ::setenv(name, value.c_str(), 1);
  }
  static Names hosts(int64_t ranks) {
    Job job;
    job.instance_count = ranks;
    return on_allocated_nodes(job).hosts;
  }
  static Error error(int64_t ranks) {
    try {
      hosts(ranks);
    } catch (const Error& e) {
      return e;
    }
    return Error(Exit::ok, "", "none");
  }
};

TEST_F(Allocations, NoneLeavesTheJobAsItIs) { EXPECT_EQ(hosts(2), Names{}); }

TEST_F(Allocations, OfSlurm) {
  set({{"SLURM_JOB_ID", "7"}, {"SLURM_JOB_NODELIST", "n[1-2]"}, {"SLURM_TASKS_PER_NODE", "1(x2)"}});
  EXPECT_EQ(hosts(2), (Names{"n1:1", "n2:1"}));
  // More ranks than tasks: as many as CPUs.
  EXPECT_EQ(error(4).id(), "E_ALLOCATION");
  set({{"SLURM_JOB_CPUS_PER_NODE", "4(x2)"}});
  EXPECT_EQ(hosts(4), (Names{"n1:2", "n2:2"}));
  EXPECT_EQ(hosts(8), (Names{"n1:4", "n2:4"}));
  const Error many = error(9);
  EXPECT_EQ(many.exit(), Exit::config);
  EXPECT_NE(std::string(many.what()).find("2 nodes with 8 places"), std::string::npos) << many.what();
  // Every node has its share.
  set({{"SLURM_JOB_NODELIST", "n[1-3]"},
       {"SLURM_TASKS_PER_NODE", "4(x2),2"},
       {"SLURM_JOB_CPUS_PER_NODE", "4(x3)"}});
  EXPECT_EQ(hosts(5), (Names{"n1:2", "n2:2", "n3:1"}));
  EXPECT_EQ(hosts(10), (Names{"n1:4", "n2:4", "n3:2"}));
  EXPECT_EQ(error(2).id(), "E_ALLOCATION");  // a node would be idle
  EXPECT_EQ(hosts(1), Names{});
  // `srun --pty bash` has one of them.
  set({{"SLURM_STEP_ID", "0"}});
  EXPECT_EQ(hosts(2), Names{});
  set({{"SLURM_STEP_ID", "4294967290"}});  // an interactive allocation's shell
  EXPECT_EQ(hosts(3), (Names{"n1:1", "n2:1", "n3:1"}));
  set({{"SLURM_JOB_NODELIST", "n[1-"}});
  EXPECT_EQ(error(2).id(), "E_ALLOCATION");
}

TEST_F(Allocations, OneNodeNeedsNoHosts) {
  set({{"SLURM_JOB_ID", "7"}, {"SLURM_JOB_NODELIST", "n1"}, {"SLURM_TASKS_PER_NODE", "1"}});
  EXPECT_EQ(hosts(2), Names{});
}

TEST_F(Allocations, OfPbsAndLsf) {
  const TestFolder folder;
  write_file(folder.file("nodes"), "n1\nn2\nn1\nn2\n");
  set({{"PBS_NODEFILE", folder.file("nodes")}});
  EXPECT_EQ(hosts(4), (Names{"n1:2", "n2:2"}));
  clear();
  set({{"LSB_MCPU_HOSTS", "a 2 b 4"}, {"LSB_HOSTS", "a a b b b b"}});
  EXPECT_EQ(hosts(6), (Names{"a:2", "b:4"}));
  set({{"LSB_MCPU_HOSTS", "a 2 b"}});
  EXPECT_EQ(error(2).id(), "E_ALLOCATION");
  ::unsetenv("LSB_MCPU_HOSTS");
  EXPECT_EQ(hosts(3), (Names{"a:1", "b:2"}));
}

// Open MPI starts its daemons where the batch system's own list says: without, Slurm starts them all on the first node.
TEST_F(Allocations, AreLeftToMpirunToStartIn) {
  set({{"SLURM_JOB_ID", "7"}, {"SLURM_JOB_NODELIST", "n[1-2]"}, {"SLURM_TASKS_PER_NODE", "1(x2)"}});
  Job job;
  job.instance_count = 2;
  const auto words = mpirun_command(on_allocated_nodes(job), 2);
  EXPECT_NE(std::ranges::find(words, "n1:1,n2:1"), words.end());
  EXPECT_EQ(std::ranges::find(words, "ras"), words.end());
  EXPECT_NE(std::ranges::find(words, "--oversubscribe"),
            words.end());  // ranks by CPUs may be more than tasks
}

TEST_F(Allocations, TheJobsOwnHostsCount) {
  set({{"SLURM_JOB_ID", "7"}, {"SLURM_JOB_NODELIST", "n[1-2]"}, {"SLURM_TASKS_PER_NODE", "1(x2)"}});
  Job job;
  job.instance_count = 2;
  job.hosts = {"localhost:2"};
  EXPECT_EQ(on_allocated_nodes(job).hosts, job.hosts);
  // mpirun's daemons there are signalled by the cluster, which grants 30 s.
  const auto words = mpirun_command(job, 2);
  EXPECT_NE(std::ranges::find(words, "odls_base_sigkill_timeout"), words.end());
  clear();
  const auto plain = mpirun_command(job, 2);
  EXPECT_EQ(std::ranges::find(plain, "odls_base_sigkill_timeout"), plain.end());
}

}  // namespace
}  // namespace lockstep::testing
