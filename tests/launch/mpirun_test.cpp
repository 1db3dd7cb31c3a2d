// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>

#include "launch/launcher/mpirun.h"
#include "launch/launcher/mpirun_noise.h"
#include "launch/launcher/report.h"
#include "launch/launcher/resolver.h"
#include "tests/support/temporary_folder.h"

namespace lockstep {
namespace {

const std::string kRule(74, '-');

struct Filter {
  std::string printed;
  MpirunNoise noise{[this](std::string_view text) { printed += text; }};
};

// Texts as Open MPI 4.1.4 prints them.
TEST(MpirunNoise, KeepsBackAndReadsAKilledRank) {
  Filter f;
  f.noise.feed("from a rank\n" + kRule + "\nPrimary job  terminated normally, but 1 process returned\n");
  f.noise.feed("a non-zero exit code. Per user-direction, the job has been aborted.\n" + kRule +
               "\nanother rank\n" + kRule);
  f.noise.feed(
      "\nmpirun noticed that process rank 3 with PID 0 on node host-7 exited on signal 9 (Killed).\n" +
      kRule + "\n");
  f.noise.finish();
  EXPECT_EQ(f.printed, "from a rank\nanother rank\n");
  EXPECT_EQ(f.noise.failed_rank(), 3);
  EXPECT_EQ(f.noise.cause(), "signal 9 (Killed)");
  EXPECT_EQ(f.noise.exit_code(), 0);
}

TEST(MpirunNoise, ReadsAnExitCode) {
  Filter f;
  f.noise.feed(kRule +
               "\nmpirun detected that one or more processes exited with non-zero status, thus causing\n"
               "the job to be terminated. The first process to do so was:\n\n  Process name: [[48620,1],2]\n"
               "  Exit code:    76\n" +
               kRule + "\n");
  f.noise.finish();
  EXPECT_EQ(f.printed, "");
  EXPECT_EQ(f.noise.failed_rank(), 2);
  EXPECT_EQ(f.noise.exit_code(), 76);
}

// Texts as Open MPI 5.0.7 prints them.
TEST(MpirunNoise, ReadsOpenMpi5Too) {
  Filter killed;
  killed.noise.feed("from a rank\n" + kRule +
                    "\nprterun noticed that process rank 1 with PID 26265 on node host-7 exited on\n"
                    "signal 9 (Killed).\n" +
                    kRule + "\n");
  killed.noise.finish();
  EXPECT_EQ(killed.printed, "from a rank\n");
  EXPECT_EQ(killed.noise.failed_rank(), 1);
  EXPECT_EQ(killed.noise.cause(), "signal 9 (Killed)");

  Filter left;
  left.noise.feed(kRule +
                  "\nprterun detected that one or more processes exited with non-zero status,\n"
                  "thus causing the job to be terminated. The first process to do so was:\n\n"
                  "   Process name: [prterun-host-7-26281@1,3]\n   Exit code:    76\n" +
                  kRule + "\n");
  left.noise.feed(
      kRule + "\nprterun has exited due to process rank 1 with PID 0 on node host-7 calling\n\"abort\".\n" +
      kRule + "\n");
  left.noise.finish();
  EXPECT_EQ(left.printed, "");
  EXPECT_EQ(left.noise.failed_rank(), 3);
  EXPECT_EQ(left.noise.exit_code(), 76);
}

// Both print it; only Open MPI 4 has the component that the second box is about.
TEST(MpirunNoise, ReadsALostHostAndDropsAMissingComponent) {
  for (const std::string name : {"ORTE", "PRTE"}) {
    Filter f;
    const std::string box =
        kRule + "\n" + name +
        " has lost communication with a remote daemon.\n\n  HNP daemon   : [[57003,0],0] on node "
        "head\n  Remote daemon: [[57003,0],1] on node node2\n\nThis is usually due to either a "
        "failure of the TCP network\nconnection to the node.\n" +
        kRule + "\n";
    f.noise.feed(box);
    f.noise.finish();
    EXPECT_EQ(f.printed, box);
    EXPECT_EQ(f.noise.lost_host(), "node2");
  }
  Filter f;
  const auto missing = [](const std::string& framework, const std::string& component) {
    return kRule +
           "\nA requested component was not found, or was unable to be opened.  This\nmeans that this "
           "component is either not installed or is unable to be\nused on your system.\n\nHost:      "
           "host-7\nFramework: " +
           framework + "\nComponent: " + component + "\n" + kRule + "\n";
  };
  f.noise.feed(missing("plm", "isolated") + missing("btl", "tcp") + missing("plm", "isolated"));
  f.noise.finish();
  EXPECT_EQ(f.printed, missing("btl", "tcp"));
  EXPECT_EQ(f.noise.lost_host(), "");
}

TEST(MpirunNoise, ReadsAConnectionThatCannotBe) {
  Filter f;
  const std::string box =
      kRule +
      "\nWARNING: Open MPI failed to TCP connect to a peer MPI process.  This\nshould not happen.\n\nYour "
      "Open "
      "MPI job may now hang or fail.\n\n  Local host: node1\n  PID:        31154\n  Message:    connect() to "
      "10.88.0.2:1024 failed\n  Error:      No route to host (113)\n" +
      kRule + "\n";
  f.noise.feed(box);
  f.noise.finish();
  EXPECT_EQ(f.printed, box);
  EXPECT_EQ(f.noise.unreachable(), "node1 cannot connect to 10.88.0.2 (No route to host)");
}

TEST(MpirunNoise, HandsReportsOver) {
  std::string printed;
  std::vector<std::string> reports;
  MpirunNoise noise([&](std::string_view text) { printed += text; },
                    [&](std::string_view line) {
                      if (line.find("report") == std::string_view::npos) return false;
                      reports.emplace_back(line);
                      return true;
                    });
  noise.feed("a\nreport 1\n" + kRule + "\nMPI_ABORT was invoked\nreport 2\n" + kRule + "\nb\n");
  noise.finish();
  EXPECT_EQ(printed, "a\nb\n");
  EXPECT_EQ(reports, (std::vector<std::string>{"report 1", "report 2"}));
}

TEST(Reports, OfRanksOnOtherHosts) {
  const testing::TestFolder folder;
  EXPECT_FALSE(take_report(folder.path(), "a line"));
  EXPECT_FALSE(take_report(folder.path(), "lockstep-report 1 nonsense 1"));
  EXPECT_FALSE(read_rank(folder.path(), 1).started);
  EXPECT_TRUE(take_report(folder.path(), "lockstep-report 1 remote 1"));
  EXPECT_TRUE(take_report(folder.path(), "[1,1]<stderr>:lockstep-report 1 met 1"));
  RankState s = read_rank(folder.path(), 1);
  EXPECT_TRUE(s.started && s.remote && s.met && !s.peer_lost);
  EXPECT_EQ(s.step, -1);
  EXPECT_EQ(s.code, -1);
  for (const char* line :
       {"lockstep-report 1 step 223", "lockstep-report 1 peer_lost 1", "lockstep-report 1 code 75"})
    EXPECT_TRUE(take_report(folder.path(), line));
  s = read_rank(folder.path(), 1);
  EXPECT_TRUE(s.met && s.peer_lost);
  EXPECT_EQ(s.step, 223);
  EXPECT_EQ(s.code, 75);
}

TEST(MpirunNoise, LetsEverythingElsePass) {
  const std::string text = "a table\n" + kRule + "\nname  value\n" + kRule + "\nx  1\n" + kRule +
                           "\nThere are not enough slots available in the system\n" + kRule + "\n\n" + kRule +
                           "\n" + kRule + "\nend";
  for (size_t piece : {size_t{1}, size_t{7}, text.size()}) {
    Filter f;
    for (size_t i = 0; i < text.size(); i += piece) f.noise.feed(std::string_view(text).substr(i, piece));
    f.noise.finish();
    EXPECT_EQ(f.printed, text + "\n");
    EXPECT_EQ(f.noise.failed_rank(), -1);
  }
}

bool has(const std::vector<std::string>& words, const std::string& word) {
  return std::count(words.begin(), words.end(), word) > 0;
}

TEST(Mpirun, FastTransportsOnOneHostOnly) {
  Job job;
  job.instance_count = 2;
  EXPECT_TRUE(has(mpirun_command(job, 2), "self,vader"));
  job.hosts = {"a:1", "b:1"};
  const auto c = mpirun_command(job, 2);
  EXPECT_FALSE(has(c, "self,vader"));
  EXPECT_TRUE(has(c, "a:1,b:1"));
}

TEST(Mpirun, KeepsToTheNetworkThatTheJobNames) {
  Job job;
  job.hosts = {"a:1", "b:1"};
  EXPECT_FALSE(has(mpirun_command(job, 2), "btl_tcp_if_include"));
  job.network_interface = "10.0.0.0/8";
  const auto c = mpirun_command(job, 2);
  for (const char* parameter : {"btl_tcp_if_include", "oob_tcp_if_include"}) {
    const auto at = std::find(c.begin(), c.end(), parameter);
    ASSERT_LT(at + 1, c.end()) << parameter;
    EXPECT_EQ(*(at + 1), "10.0.0.0/8");
  }
}

// Where the job names none: that of the hosts' own addresses, so that docker0 is not tried.
TEST(Mpirun, KeepsToTheNetworkOfTheHosts) {
  const auto ip = [](uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
    return a << 24 | b << 16 | c << 8 | d;
  };
  EXPECT_EQ(smallest_network({ip(10, 77, 0, 1), ip(10, 77, 0, 2)}), "10.77.0.0/30");
  EXPECT_EQ(smallest_network({ip(10, 77, 0, 2), ip(10, 77, 0, 3)}), "10.77.0.2/31");
  EXPECT_EQ(smallest_network({ip(192, 168, 1, 7), ip(192, 168, 200, 9), ip(192, 168, 1, 7)}),
            "192.168.0.0/16");
  EXPECT_EQ(smallest_network({ip(10, 1, 0, 1), ip(11, 1, 0, 1)}),
            "");  // they share too little to be one network
  EXPECT_EQ(smallest_network({ip(10, 0, 0, 5), ip(52, 31, 7, 7)}), "");   // behind a translation
  EXPECT_EQ(smallest_network({ip(10, 77, 0, 1), ip(10, 77, 0, 1)}), "");  // one machine
  EXPECT_EQ(smallest_network({}), "");
  EXPECT_EQ(network_of({"localhost", "127.0.0.2"}), "");
  EXPECT_EQ(network_of({"127.0.0.1", "no-such-host.invalid"}), "");
}

// What ssh says of a host comes before mpirun's words, which may not name it.
TEST(Mpirun, HearsFromSshWhichHostIsLost) {
  for (const char* line :
       {"Connection to node2 closed by remote host.\r\n", "Timeout, server node2 not responding.\n"}) {
    MpirunNoise noise([](std::string_view) {});
    noise.feed(line);
    EXPECT_EQ(noise.lost_host(), "node2") << line;
  }
  MpirunNoise noise([](std::string_view) {});
  noise.feed("Connection to node2 closed.\n");
  EXPECT_EQ(noise.lost_host(), "");
}

TEST(Mpirun, YieldsWhereNoCoreIsFree) {
  Job job;
  job.instance_count = 2;
  EXPECT_TRUE(has(mpirun_command(job, 2), "mpi_yield_when_idle"));
  EXPECT_TRUE(has(mpirun_command(job, 1), "mpi_yield_when_idle"));
  EXPECT_TRUE(has(mpirun_command(job, 8), "mpi_yield_when_idle"));  // four threads a rank
  job.threads_per_rank = 2;
  EXPECT_FALSE(has(mpirun_command(job, 8), "mpi_yield_when_idle"));
}

}  // namespace
}  // namespace lockstep
