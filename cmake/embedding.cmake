# SPDX-License-Identifier: Apache-2.0
# What other C++ programs take from an installed Lockstep: find_package(lockstep) and lockstep::lockstep (docs/embedding.md).
# Of component `development`, which the Debian package of the program leaves out.
include(CMakePackageConfigHelpers)
set(package_folder ${CMAKE_INSTALL_LIBDIR}/cmake/lockstep)

# The floors below the commands, as archives. The topmost is lockstep::lockstep and brings the others.
set(libraries lockstep_kernels lockstep_runtime lockstep_models lockstep_job)
foreach(library ${libraries})
  string(REPLACE lockstep_ "" name ${library})
  set_target_properties(${library} PROPERTIES EXPORT_NAME ${name})
endforeach()
set_target_properties(lockstep_job PROPERTIES EXPORT_NAME lockstep)
target_compile_features(lockstep_kernels INTERFACE cxx_std_20)
install(TARGETS ${libraries} EXPORT lockstepTargets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT development
        INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(EXPORT lockstepTargets NAMESPACE lockstep:: DESTINATION ${package_folder} COMPONENT development)
configure_package_config_file(cmake/embedding/lockstepConfig.cmake.in ${CMAKE_BINARY_DIR}/generated/lockstepConfig.cmake
                              INSTALL_DESTINATION ${package_folder})
# Before version 1 a minor version may break what was.
write_basic_package_version_file(${CMAKE_BINARY_DIR}/generated/lockstepConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/generated/lockstepConfig.cmake ${CMAKE_BINARY_DIR}/generated/lockstepConfigVersion.cmake
              cmake/embedding/FindDNNL.cmake DESTINATION ${package_folder} COMPONENT development)

# To open a trained model and ask it, to draw, to build a graph; and the contracts of the ops.
set(headers launch/job/trained_model.h models/blocks.h models/diffusion/generate.h models/objectives/classification.h
            models/objectives/diffusion.h models/picture.h runtime/graph/program.h runtime/training/session.h)
file(GLOB contracts CONFIGURE_DEPENDS RELATIVE ${CMAKE_SOURCE_DIR} kernels/*/*.h)
foreach(contract ${contracts})  # kernels/ROOM/ROOM.h
  if(contract MATCHES "/([^/]+)/([^/]+)\\.h$" AND CMAKE_MATCH_1 STREQUAL CMAKE_MATCH_2)
    list(APPEND headers ${contract})
  endif()
endforeach()
install(CODE "execute_process(COMMAND ${CMAKE_COMMAND} -DSOURCE=${CMAKE_SOURCE_DIR} \"-DHEADERS=${headers}\"
                              -DTO=${CMAKE_BINARY_DIR}/headers -P ${CMAKE_SOURCE_DIR}/cmake/embedding/headers.cmake
                              COMMAND_ERROR_IS_FATAL ANY)" COMPONENT development)
install(DIRECTORY ${CMAKE_BINARY_DIR}/headers/lockstep DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT development)
