from digitfast.cli.app import main

main()
