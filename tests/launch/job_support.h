// SPDX-License-Identifier: Apache-2.0
// A small valid job as text, and variants of it.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "launch/job/job.h"
#include "tests/support/files.h"
#include "tests/support/temporary_folder.h"

namespace lockstep::testing {

inline const std::string kSmallJob =
    "job_name: small\n"                           // 1
    "instance_count: 2\n"                         // 2
    "backend: mpi\n"                              // 3
    "model: {name: mnist_convnet}\n"              // 4
    "inputs:\n"                                   // 5
    "  training: {dataset: mnist, path: data}\n"  // 6
    "hyperparameters:\n"                          // 7
    "  epochs: 1\n"                               // 8
    "  global_batch_size: 64\n"                   // 9
    "  optimizer: {name: sgd, lr: 0.1}\n";        // 10

inline std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return at == std::string::npos ? text : text.replace(at, from.size(), to);
}

// A job whose model is `layers` in flow syntax; they start on line 4.
inline std::string with_layers(const std::string& layers) {
  return replaced(kSmallJob, "{name: mnist_convnet}", "{layers: " + layers + "}");
}

class JobFolder {
 public:
  const std::string& path() const { return folder_.path(); }
  std::string file() const { return folder_.file("job.yaml"); }
  Job read(const std::string& text, const std::vector<std::string>& overrides = {}) const {
    write_file(file(), text);
    return read_job(file(), overrides);
  }

 private:
  TestFolder folder_;
};

}  // namespace lockstep::testing
