// SPDX-License-Identifier: Apache-2.0
#include "launch/fetch/fetch.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <csignal>
#include <cstring>
#include <filesystem>

#include "launch/fetch/shown_url.h"
#include "runtime/data/hash.h"
#include "tests/support/files.h"
#include "tests/support/gzip.h"
#include "tests/support/http_server.h"
#include "tests/support/temporary_folder.h"

namespace lockstep {
namespace {

namespace fs = std::filesystem;
using testing::gzip;
using testing::HttpServer;
using testing::read_file;
using testing::TestFolder;
using testing::write_file;

std::string md5(const std::string& text) {
  Digest digest("md5");
  digest.add(text);
  return digest.hex();
}

// Bytes that no compressor shortens, so that offsets in the file mean something.
std::string noise(size_t n) {
  std::string text(n, '\0');
  uint64_t x = 88172645463325252u;
  for (char& c : text) c = static_cast<char>((x ^= x << 13, x ^= x >> 7, x ^= x << 17) >> 32);
  return text;
}

class Fetch : public ::testing::Test {
 protected:
  void SetUp() override {
    ::setenv("no_proxy", "*", 1);
    options.arrived = [this](const std::string& file, const std::string& from) {
      arrivals.push_back(file + " " + from);
    };
    options.stall_seconds = 1;
  }
  RemoteSet plain(const std::vector<std::string>& mirrors) {
    return {"x", mirrors, {{"a.bin", md5(content), false}}, ""};
  }
  Error failure(const RemoteSet& set) {
    try {
      fetch(set, to(), options);
    } catch (const Error& e) {
      return e;
    }
    ADD_FAILURE() << "expected an Error";
    return {Exit::ok, "", ""};
  }
  std::string to() const { return folder.file("data/x"); }
  std::string got() const { return read_file(to() + "/a.bin"); }

  TestFolder folder;
  std::string content = noise(300'000);
  FetchOptions options;
  std::vector<std::string> arrivals;
  HttpServer server, second;
};

TEST_F(Fetch, PutsTheFileInPlaceOnce) {
  server.put("a.bin", {content});
  int64_t last = 0;
  options.progress = [&](const std::string&, int64_t done, int64_t total) {
    EXPECT_GE(done, last);
    EXPECT_TRUE(total == 0 || total == 300'000);
    last = done;
  };
  fetch(plain({server.url()}), to(), options);
  EXPECT_TRUE(got() == content);
  EXPECT_EQ(last, 300'000);
  EXPECT_FALSE(fs::exists(to() + "/a.bin.part"));
  fetch(plain({server.url()}), to(), options);  // nothing to do
  EXPECT_EQ(server.requests(), std::vector<std::string>{"a.bin"});
  EXPECT_EQ(arrivals, (std::vector<std::string>{"a.bin " + server.url() + "a.bin", "a.bin "}));
}

TEST_F(Fetch, ReplacesADamagedFile) {
  server.put("a.bin", {content});
  fs::create_directories(to());
  write_file(to() + "/a.bin", "damaged");
  fetch(plain({server.url()}), to(), options);
  EXPECT_TRUE(got() == content);
}

TEST_F(Fetch, TheNextMirrorServesWhatTheFirstLacks) {
  second.put("a.bin", {content});
  std::string no_slash = second.url();
  no_slash.pop_back();
  fetch(plain({server.url(), no_slash}), to(), options);
  EXPECT_TRUE(got() == content);
  EXPECT_EQ(server.requests().size(), 1u);
}

TEST_F(Fetch, MirrorsGivenReplaceTheOwn) {
  second.put("a.bin", {content});
  options.mirrors = {second.url()};
  fetch(plain({server.url()}), to(), options);
  EXPECT_TRUE(server.requests().empty());
}

TEST_F(Fetch, ABrokenTransferIsContinuedWhereItBroke) {
  server.put("a.bin", {content, 200, true, 120'000});
  fetch(plain({server.url()}), to(), options);
  EXPECT_TRUE(got() == content);
  EXPECT_EQ(server.requests(), (std::vector<std::string>{"a.bin", "a.bin from 120000", "a.bin from 240000"}));
}

TEST_F(Fetch, TheNextCallContinuesToo) {
  server.put("a.bin", {content, 200, true, 50'000});
  const Error e = failure(plain({server.url()}));
  EXPECT_EQ(e.exit(), Exit::try_again);
  EXPECT_EQ(fs::file_size(to() + "/a.bin.part"), 150'000u);
  EXPECT_FALSE(fs::exists(to() + "/a.bin"));
  server.put("a.bin", {content});
  fetch(plain({server.url()}), to(), options);
  EXPECT_TRUE(got() == content);
  EXPECT_EQ(server.requests().back(), "a.bin from 150000");
}

TEST_F(Fetch, WithoutRangesItStartsAgain) {
  fs::create_directories(to());
  write_file(to() + "/a.bin.part", content.substr(0, 1000));
  server.put("a.bin", {content, 200, false});
  fetch(plain({server.url()}), to(), options);
  EXPECT_TRUE(got() == content);
}

TEST_F(Fetch, APartThatIsTooLongStartsAgain) {
  fs::create_directories(to());
  write_file(to() + "/a.bin.part", content + "more");
  server.put("a.bin", {content});
  fetch(plain({server.url()}), to(), options);
  EXPECT_TRUE(got() == content);
}

TEST_F(Fetch, APartThatIsWholeIsOnlyRenamed) {
  fs::create_directories(to());
  write_file(to() + "/a.bin.part", content);
  fetch(plain({server.url()}), to(), options);
  EXPECT_TRUE(got() == content);
  EXPECT_TRUE(server.requests().empty());
}

TEST_F(Fetch, APartFromElsewhereStartsAgain) {
  fs::create_directories(to());
  write_file(to() + "/a.bin.part", std::string(1000, 'x'));
  server.put("a.bin", {content});
  fetch(plain({server.url()}), to(), options);
  EXPECT_TRUE(got() == content);
  EXPECT_EQ(server.requests(), (std::vector<std::string>{"a.bin from 1000", "a.bin"}));
}

TEST_F(Fetch, WrongBytesAreRefused) {
  std::string wrong = content;
  wrong[1234] ^= 1;
  server.put("a.bin", {wrong});
  const Error e = failure(plain({server.url()}));
  EXPECT_EQ(e.exit(), Exit::data);
  EXPECT_NE(e.message().find(server.url() + "a.bin: expected MD5 " + md5(content) + ", found " + md5(wrong)),
            std::string::npos)
      << e.what();
  EXPECT_FALSE(fs::exists(to() + "/a.bin"));
  EXPECT_FALSE(fs::exists(to() + "/a.bin.part"));
  second.put("a.bin", {content});
  fetch(plain({server.url(), second.url()}), to(), options);
  EXPECT_TRUE(got() == content);
}

TEST_F(Fetch, EveryMirrorsCauseIsNamed) {
  second.put("a.bin", {content, 503});
  const std::string closed = "http://127.0.0.1:1/";
  const Error e = failure(plain({server.url(), second.url(), closed, "file:///etc/"}));
  EXPECT_EQ(e.exit(), Exit::try_again);
  for (const std::string& part : {server.url(), second.url(), closed, std::string("404"), std::string("503"),
                                  std::string("file:///etc/a.bin: ")})
    EXPECT_NE(e.message().find(part), std::string::npos) << part << " in " << e.what();
}

TEST_F(Fetch, AStalledTransferIsGivenUp) {
  server.put("a.bin", {content, 200, true, 0, true});
  options.attempts = 1;
  const Error e = failure(plain({server.url()}));
  EXPECT_EQ(e.exit(), Exit::try_again);
  EXPECT_FALSE(fs::exists(to() + "/a.bin.part"));
}

// A byte now and then is no progress either.
TEST_F(Fetch, ATricklingTransferIsGivenUp) {
  server.put("a.bin", {content, 200, true, -1, false, true});
  options.attempts = 1;
  const Error e = failure(plain({server.url()}));
  EXPECT_EQ(e.exit(), Exit::try_again);
  EXPECT_NE(e.message().find("too slow"), std::string::npos) << e.what();
  EXPECT_NE(e.message().find("1000 bytes/sec"), std::string::npos) << e.what();
  second.put("a.bin", {content});
  fetch(plain({server.url(), second.url()}), to(), options);
  EXPECT_TRUE(got() == content);
}

TEST_F(Fetch, AMirrorsPasswordIsToldToNobody) {
  const auto with_password = [](std::string url) { return url.insert(7, "me:p@ss/wörd@"); };
  const std::string told = "http://***@" + server.url().substr(7) + "a.bin";
  const Error e = failure(plain({with_password(server.url())}));
  EXPECT_EQ(e.exit(), Exit::try_again);
  for (const std::string& part : {std::string("p@ss"), std::string("wörd"), std::string("me:")})
    EXPECT_EQ(std::string(e.what()).find(part), std::string::npos) << e.what();
  EXPECT_NE(e.message().find(told), std::string::npos) << e.what();
  server.put("a.bin", {content});
  fetch(plain({server.url().insert(7, "me:p%40ss@")}), to(), options);
  EXPECT_TRUE(got() == content);
  EXPECT_EQ(arrivals, (std::vector<std::string>{"a.bin " + told}));
}

TEST(ShownUrl, HasNeitherNameNorPassword) {
  EXPECT_EQ(shown_url("https://host/a/b"), "https://host/a/b");
  EXPECT_EQ(shown_url("https://me@host/a"), "https://***@host/a");
  EXPECT_EQ(shown_url("https://me:secret@host:8/a"), "https://***@host:8/a");
  EXPECT_EQ(shown_url("me:secret@host/a"), "***@host/a");
  EXPECT_EQ(shown_url(""), "");
}

TEST_F(Fetch, SumsOfContentAllowOtherWrappers) {
  RemoteSet set{"x", {server.url()}, {{"a.gz", md5(content), true}}, ""};
  for (int level : {0, 1, 9}) {
    server.put("a.gz", {gzip(content, level)});
    fs::remove_all(to());
    fetch(set, to(), options);
    EXPECT_TRUE(read_file(to() + "/a.gz") == gzip(content, level));
  }
  std::string damaged = gzip(content);
  damaged[damaged.size() - 6] ^= 1;
  for (const std::string& bad : {damaged, gzip(content) + "x", gzip(content).substr(0, 5000)}) {
    server.put("a.gz", {bad});
    fs::remove_all(to());
    EXPECT_EQ(failure(set).exit(), Exit::data);
  }
}

TEST_F(Fetch, WhatCannotBeWritten) {
  write_file(folder.file("data"), "a file where a folder must be");
  EXPECT_EQ(failure(plain({server.url()})).exit(), Exit::cannot_create);
  fs::remove(folder.file("data"));
  fs::create_directories(to() + "/a.bin.part");
  EXPECT_EQ(failure(plain({server.url()})).exit(), Exit::cannot_create);
}

TEST_F(Fetch, AFullDiskIsAnIoError) {
  // A limit on the size of files stands in for the full disk, in a process of its own.
  server.put("a.bin", {content});
  const auto attempt = [&] {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{100'000, 100'000};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    try {
      fetch(plain({server.url()}), to(), options);
    } catch (const Error& e) {
      ::_exit(e.code());
    }
    ::_exit(0);
  };
  EXPECT_EXIT(attempt(), ::testing::ExitedWithCode(static_cast<int>(Exit::io)), "");
}

// A ustar member.
std::string member(const std::string& name, const std::string& data, char type = '0') {
  char h[512] = {};
  std::snprintf(h, 100, "%s", name.c_str());
  std::snprintf(h + 100, 8, "0000644");
  std::snprintf(h + 124, 12, "%011zo", data.size());
  std::memcpy(h + 257, "ustar\00000", 8);
  h[156] = type;
  std::memset(h + 148, ' ', 8);
  unsigned sum = 0;
  for (char c : h) sum += static_cast<unsigned char>(c);
  std::snprintf(h + 148, 8, "%06o", sum);
  std::string text(h, 512);
  text += data;
  return text.append((512 - data.size() % 512) % 512, '\0');
}
const std::string kTarEnd(1024, '\0');

class Tar : public Fetch {
 protected:
  Exit unpack(const std::string& tar_gz) {
    write_file(folder.file("t.tar.gz"), tar_gz);
    try {
      unpack_tar_gz(folder.file("t.tar.gz"), to());
      return Exit::ok;
    } catch (const Error& e) {
      return e.exit();
    }
  }
};

TEST_F(Tar, UnpacksFilesAndFolders) {
  const std::string big = noise(70'000);
  EXPECT_EQ(
      unpack(gzip(member("d/", "", '5') + member("d/empty", "") + member("pax", "17 comment=hello\n", 'x') +
                  member("d/big", big) + member("d/e/512", std::string(512, 'y')) + kTarEnd)),
      Exit::ok);
  EXPECT_EQ(read_file(to() + "/d/empty"), "");
  EXPECT_TRUE(read_file(to() + "/d/big") == big);
  EXPECT_EQ(read_file(to() + "/d/e/512"), std::string(512, 'y'));
  EXPECT_FALSE(fs::exists(to() + "/pax"));
}

TEST_F(Tar, RefusesWhatLeadsOut) {
  for (const std::string name : {"../evil", "d/../../evil", "/tmp/evil", ""}) {
    EXPECT_EQ(unpack(gzip(member(name, "x") + kTarEnd)), Exit::data) << name;
    EXPECT_EQ(unpack(gzip(member(name, "", '5') + kTarEnd)), Exit::data) << name;
  }
  for (char type : {'1', '2', '3', '6', 'L'})
    EXPECT_EQ(unpack(gzip(member("a", "", type) + kTarEnd)), Exit::data) << type;
  EXPECT_FALSE(fs::exists(folder.file("data/evil")));
  EXPECT_FALSE(fs::exists(folder.file("evil")));
}

TEST_F(Tar, RefusesEveryTruncationAndDamagedHeader) {
  const std::string tar = member("a", noise(600)) + kTarEnd;
  // Up to the first of the two blocks at the end, which is where reading ends.
  for (size_t n = 0; n < tar.size() - 512; n += 31)
    EXPECT_EQ(unpack(gzip(tar.substr(0, n))), Exit::data) << n;
  for (size_t i = 0; i < 512; ++i) {
    std::string bad = tar;
    bad[i] ^= 1;
    if (i >= 154 && i <= 155) continue;  // what ends the checksum's digits
    EXPECT_EQ(unpack(gzip(bad)), Exit::data) << i;
  }
}

TEST_F(Tar, Cifar10ArrivesUnpackedAndTheArchiveGoes) {
  std::string tar = member("cifar-10-batches-bin/", "", '5');
  const std::string batch(10000 * 3073, '\1');
  for (const char* name : {"data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin",
                           "data_batch_5.bin", "test_batch.bin"})
    tar += member(std::string("cifar-10-batches-bin/") + name, batch);
  const std::string archive = gzip(tar + kTarEnd, 1);
  server.put("c.tar.gz", {archive});
  const RemoteSet set{"cifar10", {server.url()}, {{"c.tar.gz", md5(archive), false}}, "cifar-10-batches-bin"};
  fetch(set, to(), options);
  EXPECT_EQ(fs::file_size(to() + "/cifar-10-batches-bin/data_batch_5.bin"), batch.size());
  EXPECT_FALSE(fs::exists(to() + "/c.tar.gz"));
  fetch(set, to(), options);
  EXPECT_EQ(server.requests().size(), 1u);
  fs::resize_file(to() + "/cifar-10-batches-bin/test_batch.bin", 5);
  fetch(set, to(), options);
  EXPECT_EQ(server.requests().size(), 2u);
  EXPECT_EQ(fs::file_size(to() + "/cifar-10-batches-bin/test_batch.bin"), batch.size());
}

TEST_F(Fetch, TheNoticeLiesBesideTheData) {
  server.put("a.bin", {content});
  RemoteSet set = plain({server.url()});
  set.notice = "By whom, and under which licence.\n";
  fetch(set, to(), options);
  EXPECT_EQ(read_file(to() + "/README.md"), set.notice);
  write_file(to() + "/README.md", "the user's own");
  fetch(set, to(), options);
  EXPECT_EQ(read_file(to() + "/README.md"), "the user's own");
  for (const RemoteSet& known : remote_sets()) EXPECT_NE(known.notice, "") << known.name;
}

// The published sums, on the real files, through the real command.
TEST_F(Fetch, TheCommandGetsMnist) {
  if (!fs::exists(LOCKSTEP_BINARY)) GTEST_SKIP() << "the binary is not built";
  const std::string source = LOCKSTEP_SOURCE_DIR "/configs/data/mnist/";
  for (const char* name : {"train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz",
                           "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"})
    second.put(name, {read_file(source + name)});
  const auto run = [&](const std::string& arguments) {
    const std::string command =
        std::string(LOCKSTEP_BINARY) + " data " + arguments + " >" + folder.file("out") + " 2>&1";
    const int status = std::system(command.c_str());
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  };
  const std::string get =
      "get mnist --to " + to() + " --mirror " + server.url() + " --mirror " + second.url();
  EXPECT_EQ(run(get), 0) << read_file(folder.file("out"));
  EXPECT_EQ(read_file(to() + "/train-images-idx3-ubyte.gz"),
            read_file(source + "train-images-idx3-ubyte.gz"));
  EXPECT_NE(read_file(to() + "/README.md").find("https://creativecommons.org/licenses/by-sa/3.0/"),
            std::string::npos);
  EXPECT_EQ(run(get), 0);
  EXPECT_EQ(second.requests().size(), 4u);
  EXPECT_EQ(run("get cifar10 --to " + to() + " --mirror " + server.url()), 75);
  EXPECT_EQ(run("get minst"), 64);
  EXPECT_NE(read_file(folder.file("out")).find("did you mean 'mnist'"), std::string::npos);
  EXPECT_EQ(run("get"), 64);
  EXPECT_EQ(run("--help"), 0);
}

}  // namespace
}  // namespace lockstep
