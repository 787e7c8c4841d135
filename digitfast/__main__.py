from digitfast.cli import main

main()
