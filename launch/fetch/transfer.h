// SPDX-License-Identifier: Apache-2.0
// One HTTP(S) transfer into a file, by libcurl.
#pragma once

#include <string>

#include "launch/fetch/fetch.h"
#include "launch/fetch/part_file.h"

namespace lockstep {

struct TransferResult {
  bool whole = false;
  bool worth_another = false;  // the connection broke: going on from where it did may succeed
  std::string cause;           // why it is not whole
};

// Continues `out` where it ends, or starts again where the server cannot. Error io (74) from writing only.
TransferResult transfer(const std::string& url, const std::string& name, PartFile& out,
                        const FetchOptions& options);

}  // namespace lockstep
