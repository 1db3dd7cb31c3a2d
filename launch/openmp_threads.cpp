// SPDX-License-Identifier: Apache-2.0
#include "launch/openmp_threads.h"

#include <unistd.h>

#include <climits>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

namespace lockstep {
namespace {

bool user_says() {
  return std::getenv("OMP_WAIT_POLICY") != nullptr || std::getenv("GOMP_SPINCOUNT") != nullptr;
}

}  // namespace

void let_openmp_threads_of_others_sleep() {
  if (!user_says()) ::setenv("GOMP_SPINCOUNT", "1000", 1);
}

void let_openmp_threads_sleep() {
  if (user_says()) return;
  char self[PATH_MAX] = {};
  if (::readlink("/proc/self/exe", self, sizeof self - 1) <= 0) return;
  std::ifstream file("/proc/self/cmdline", std::ios::binary);
  std::vector<std::string> words;
  for (std::string word; std::getline(file, word, '\0');) words.push_back(word);
  if (words.empty()) return;
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  let_openmp_threads_of_others_sleep();
  ::execv(self, argv.data());
}

}  // namespace lockstep
