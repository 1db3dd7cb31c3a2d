// SPDX-License-Identifier: Apache-2.0
// The page at "/": one file without outside resources (page.html).
#pragma once

#include <string>

namespace lockstep::serve {

const std::string& page();

}  // namespace lockstep::serve
