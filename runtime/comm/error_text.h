// SPDX-License-Identifier: Apache-2.0
// An error as text that goes from rank to rank.
#pragma once

#include <string>

#include "kernels/core/error.h"

namespace lockstep {

std::string encode(const Error& e);
Error decode_error(const std::string& text);

}  // namespace lockstep
