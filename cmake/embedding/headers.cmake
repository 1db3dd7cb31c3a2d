# SPDX-License-Identifier: Apache-2.0
# Copies headers and all that they include to TO/lockstep, where they include one another as <lockstep/...>: no names of ours
# such as models/ come into another program's search path.
#   cmake -DSOURCE=FOLDER -DHEADERS="a.h;b.h" -DTO=FOLDER -P cmake/embedding/headers.cmake
cmake_minimum_required(VERSION 3.22)
set(ours "#[ \t]*include \"((kernels|runtime|models|launch)/[^\"\n]+)\"")
file(REMOVE_RECURSE ${TO}/lockstep)
set(done)
while(HEADERS)
  list(POP_FRONT HEADERS header)
  if(header IN_LIST done)
    continue()
  endif()
  list(APPEND done ${header})
  file(READ ${SOURCE}/${header} text)
  string(REGEX MATCHALL "${ours}" includes "${text}")
  foreach(include ${includes})
    string(REGEX REPLACE "${ours}" "\\1" include "${include}")
    list(APPEND HEADERS ${include})
  endforeach()
  string(REGEX REPLACE "${ours}" "#include <lockstep/\\1>" text "${text}")
  file(WRITE ${TO}/lockstep/${header} "${text}")
endwhile()
