// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace lockstep {

// "0.2.0 (799acd69b0e1)": the release, and the commit that it was built from; ", modified" where files differ
// from it. The release alone where there is no git, as in a tarball.
const char* version();

// The version, and the linker's hash of this very program ("0.2.0 (799acd69b0e1), build 5f3a..."): other builds of a commit
// differ too.
std::string build();

}  // namespace lockstep
