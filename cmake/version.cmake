# SPDX-License-Identifier: Apache-2.0
# Writes what `lockstep --version` says into a header, at each build, and touches the header only where it changes:
#   cmake -DSOURCE=FOLDER -DVERSION=0.2.0 -DHEADER=FILE -P cmake/version.cmake
# Only SOURCE's own repository counts, not one that a tarball was unpacked in.
cmake_minimum_required(VERSION 3.22)
set(text ${VERSION})
find_program(GIT git)
if(GIT AND EXISTS ${SOURCE}/.git)
  # No optional locks: whoever works in the repository meanwhile is not disturbed.
  execute_process(COMMAND ${CMAKE_COMMAND} -E env GIT_OPTIONAL_LOCKS=0
                  ${GIT} -C ${SOURCE} describe --always --exclude=* --abbrev=12 --dirty=,\ modified
                  OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
  if(NOT failed)
    set(text "${VERSION} (${commit})")
  endif()
endif()
file(CONFIGURE OUTPUT ${HEADER} CONTENT "// Made by cmake/version.cmake.\n#define LOCKSTEP_VERSION \"${text}\"\n" @ONLY)
