// SPDX-License-Identifier: Apache-2.0
#include "runtime/comm/network_interface.h"

#include <gtest/gtest.h>

#include "kernels/core/error.h"

namespace lockstep::network_interface_test {
namespace {

TEST(NetworkInterface, IsFoundByNameAndBySubnet) {
  EXPECT_EQ(find_network_interface("lo"), "lo");
  EXPECT_EQ(find_network_interface("127.0.0.0/8"), "lo");
  EXPECT_EQ(find_network_interface("127.0.0.1/32"), "lo");
}

TEST(NetworkInterface, ThatIsNotThereIsRefusedWithThoseThatAre) {
  for (const char* none : {"nothing0", "203.0.113.0/24", "127.0.0.0/33", "127.0.0/8", ""}) {
    try {
      find_network_interface(none);
      FAIL() << none;
    } catch (const Error& e) {
      EXPECT_EQ(e.exit(), Exit::config);
      EXPECT_NE(e.hint().find("its interfaces: "), std::string::npos) << e.what();
      EXPECT_NE(e.hint().find("lo"), std::string::npos) << e.what();
    }
  }
}

}  // namespace
}  // namespace lockstep::network_interface_test
