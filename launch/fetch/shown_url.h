// SPDX-License-Identifier: Apache-2.0
// An address as it may be told to anybody.
#pragma once

#include <string>
#include <string_view>

namespace lockstep {

// "https://name:password@host/x" without what stands before the host: up to the last @, as a password may hold any character.
std::string shown_url(std::string_view url);

}  // namespace lockstep
